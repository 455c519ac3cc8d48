"""Scoring a run or a model on tasks by name: what `mm1 evaluate` does."""

from __future__ import annotations

from pathlib import Path

from mm1.errors import UserError
from mm1.evaluate.distributed import join_ranks
from mm1.evaluate.evaluate_model import evaluate_model
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.scoring import Result
from mm1.evaluate.settings import EvaluationSettings
from mm1.evaluate.tasks.task import load_task
from mm1.model.pretrained import HUB, model_directory, model_hash
from mm1.recipe import EvaluateRecipe, load_recipe


def evaluate_run(
    path: Path | str, settings: EvaluationSettings | None = None, *, to: Path | None = None
) -> list[Result]:
    """Score a run or a model.

    Args:
        path: A run directory with a finished model, or a model directory or `hub:owner/name` (which have no recipe,
            so tasks must be named).
        settings: How it is scored; what is not set is as the run's recipe has it.
        to: Where results go; default: `scores` in the directory, or `scores/owner--name` for a model of the Hub.

    Returns:
        The content of the result files (see `mm1.evaluate.evaluate_model`).

    Raises:
        UserError: If there is no such model, task or data, or they don't fit each other.
    """
    join_ranks()
    file = Path(path) / "recipe.yaml"
    recipe = load_recipe(str(file)).evaluate if file.is_file() else EvaluateRecipe()
    settings = (settings or EvaluationSettings()).over(recipe)
    if not settings.tasks:
        raise UserError(f"{path}: no tasks to score on: name them with --tasks")
    tasks = [load_task(name) for name in settings.tasks]
    directory = model_directory(path)
    return evaluate_model(
        load_generator(directory, batch_size=settings.batch_size, device=settings.device, dtype=settings.dtype),
        tasks,
        settings,
        out_dir=to or scores_directory(path),
        model_name=str(path),
        model_hash=model_hash(directory),
    )


def scores_directory(path: Path | str) -> Path:
    """Return where a model's results go: `scores` in its directory, or `scores/owner--name` for one of the Hub."""
    if str(path).startswith(HUB):
        return Path("scores") / str(path).removeprefix(HUB).replace("/", "--")
    return Path(path) / "scores"
