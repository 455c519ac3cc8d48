"""Scores a run or a model on tasks by name: the command `mm1 evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1.errors import UserError
from mm1.evaluate.distributed import join_ranks, own_group
from mm1.evaluate.evaluate_model import evaluate_model
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.scoring import Result
from mm1.evaluate.settings import EvaluationSettings
from mm1.evaluate.tasks.task import load_task
from mm1.model.resolve import copy_of_run, model_hash, resolve_model
from mm1.places import parse_model_name
from mm1.recipe import EvaluateRecipe, load_recipe


def evaluate_run(
    path: Path | str,
    tasks: Sequence[str] | None = None,
    shots: Sequence[int] | None = None,
    *,
    settings: EvaluationSettings | None = None,
    to: Path | None = None,
) -> list[Result]:
    """Score a run or a model.

    Args:
        path: Name of a model (see `mm1.places.MODEL_HELP`). A model that isn't a run has no recipe and needs `tasks`.
        tasks: Short for `settings.tasks`.
        shots: Short for `settings.shots`.
        settings: The settings of the scoring; those that aren't set come from the run's recipe.
        to: The folder for results; default: `scores` in the directory, or `scores/owner--name` for a Hub model or an
            address; of a quantized model, a folder in there.

    Returns:
        The contents of the result files (see `mm1.evaluate.evaluate_model`).

    Raises:
        UserError: If the model, a task or its data doesn't exist, or they don't fit each other.
    """
    settings = settings or EvaluationSettings()
    join_ranks(settings.ranks_per_model)
    name = parse_model_name(path)
    folder = copy_of_run(name) if name.kind == "address" else name.folder
    file = folder / "recipe.yaml" if folder else None
    recipe = load_recipe(str(file)).evaluate if file and file.is_file() else EvaluateRecipe()
    short = {key: list(value) for key, value in (("tasks", tasks), ("shots", shots)) if value is not None}
    settings = settings.over(recipe).model_copy(update=short)
    if not settings.tasks:
        raise UserError(f"{path}: no task is named: name tasks with --tasks")
    loaded = [load_task(name) for name in settings.tasks]
    directory = resolve_model(path)
    generator = load_generator(
        directory,
        batch_size=settings.batch_size,
        device=settings.device,
        dtype=settings.dtype,
        plain=settings.plain,
        quantize=settings.quantize,
    )
    if asked_plainly := [task.name for task in loaded if task.plain and getattr(generator, "chat", False)]:
        raise UserError(
            f"task {asked_plainly[0]}: its prompts are plain, and this model's chat template would be laid around "
            "them: add --plain"
        )
    return evaluate_model(
        generator,
        loaded,
        settings,
        out_dir=to or name.scores() / (settings.quantize or ""),
        model_name=str(path),
        model_hash=own_group().from_first(lambda: model_hash(directory)),
    )
