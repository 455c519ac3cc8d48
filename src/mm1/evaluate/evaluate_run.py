"""Scoring a run or a model on tasks by name: what `mm1 evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1.errors import UserError
from mm1.evaluate.distributed import join_ranks
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.runner import Result, evaluate
from mm1.evaluate.tasks.task import load_task
from mm1.model.pretrained import HUB, model_directory, model_hash
from mm1.recipe import EvaluateRecipe, load_recipe


def evaluate_run(
    path: Path | str,
    tasks: Sequence[str] | None = None,
    shots: Sequence[int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    draws: int = 1,
    *,
    detailed_shots: int | None = None,
    plain: bool | None = None,
    recipe: EvaluateRecipe | None = None,
    to: Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> list[Result]:
    """Score a run or a model; whatever is None is as the recipe has it.

    By default results go to `scores` in the directory, or to `scores/owner--name` for a model of the Hub.

    Args:
        path: A run directory with a finished model, or a model directory or `hub:owner/name` (which have no recipe,
            so tasks must be named).
        tasks: Names of packaged tasks, or task files.
        shots: Numbers of shots.
        limit: Items per task, at most.
        seed: Of the choice of items, shots, swapped pictures and resamples.
        draws: How many times shots are drawn anew; the score is the mean.
        detailed_shots: Only in the last so many shots, and in the query, pictures are cut into sub-images.
        plain: Ask a chat model too as a pre-trained one is asked, not in a conversation.
        recipe: How it is scored; default: as the run's recipe says.
        to: Where results go; default: see above.
        batch_size: Prompts per forward pass; changes the speed, not the scores.
        device: `auto`, or a torch device.
        dtype: `auto` (float32 on CPU, bfloat16 on GPU), or a torch dtype's name.

    Returns:
        The content of the result files (see `mm1.evaluate.runner`).

    Raises:
        UserError: If there is no such model, task or data, or they don't fit each other.
    """
    join_ranks()
    file = Path(path) / "recipe.yaml"
    if recipe is None:
        recipe = load_recipe(str(file)).evaluate if file.is_file() else EvaluateRecipe()
    names = tasks or recipe.tasks
    if not names:
        raise UserError(f"{path}: no tasks to score on: name them with --tasks")
    loaded = [load_task(name) for name in names]
    directory = model_directory(path)
    return evaluate(
        load_generator(directory, batch_size=batch_size or recipe.batch_size, device=device, dtype=dtype),
        loaded,
        shots=recipe.shots if shots is None else shots,
        limit=limit or recipe.limit,
        seed=seed,
        draws=draws,
        detailed_shots=recipe.detailed_shots if detailed_shots is None else detailed_shots,
        plain=recipe.plain if plain is None else plain,
        out_dir=to or scores_directory(path),
        model_name=str(path),
        model_hash=model_hash(directory),
    )


def scores_directory(path: Path | str) -> Path:
    """Return where a model's results go: `scores` in its directory, or `scores/owner--name` for one of the Hub."""
    if str(path).startswith(HUB):
        return Path("scores") / str(path).removeprefix(HUB).replace("/", "--")
    return Path(path) / "scores"
