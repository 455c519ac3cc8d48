"""Scoring a run as its recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1.errors import UserError
from mm1.evaluate.job import evaluate_model
from mm1.evaluate.runner import Result
from mm1.recipe import EvaluateRecipe, load_recipe


def evaluate_run(
    path: Path,
    tasks: Sequence[str] | None = None,
    shots: Sequence[int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    draws: int = 1,
) -> list[Result]:
    """Score a run; whatever isn't said is as the run's recipe has it.

    Args:
        path: A run's directory, or the folder of a model (which has no recipe, so tasks must be named).
        tasks: Names of packaged tasks, or task files.
        shots: Numbers of shots.
        limit: Items per task, at most.
        seed: Of items, shots and resamples.
        draws: How many draws of shots to average over.

    Raises:
        UserError: If there is nothing to score, or on nothing.
    """
    file = path / "recipe.yaml"
    recipe = load_recipe(str(file)).evaluate if file.is_file() else EvaluateRecipe()
    names = list(tasks or recipe.tasks)
    if not names:
        raise UserError(f"{path}: no tasks to score on: name them with --tasks")
    return evaluate_model(
        path,
        names,
        shots=recipe.shots if shots is None else shots,
        limit=limit or recipe.limit,
        batch_size=recipe.batch_size,
        seed=seed,
        draws=draws,
    )
