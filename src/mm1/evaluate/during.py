"""Scores during training: makes the function that `mm1.train` calls to score its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mm1.evaluate.evaluate_model import evaluate_model
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.settings import EvaluationSettings
from mm1.evaluate.tasks.items import open_items
from mm1.evaluate.tasks.task import Task, load_task
from mm1.model import MM1ForConditionalGeneration
from mm1.processing.processor import MM1Processor
from mm1.recipe import EvaluateRecipe

SAMPLES = 4
"""Answers of every task and number of shots that a training's trackers show: the first of a seeded shuffle."""


def check_tasks(names: Sequence[str]) -> list[Task]:
    """Return tasks whose data is there: before a training that they come behind.

    Raises:
        UserError: If a task or its data is missing.
    """
    tasks = [load_task(name) for name in names]
    for task in tasks:
        open_items(task.data)
        open_items(task.pool)
    return tasks


def scorer_during_training(
    recipe: EvaluateRecipe,
) -> (
    Callable[
        [MM1ForConditionalGeneration, MM1Processor, Path, str, str],
        tuple[dict[str, float], dict[str, list[dict[str, Any]]]],
    ]
    | None
):
    """Return a function that scores a model as the recipe's `during` says; None if the recipe has no `during`.

    Args:
        recipe: The recipe's `evaluate` section.

    Returns:
        See `mm1.train.scores.Score`; scores and samples are named `TASK/K-shot`.

    Raises:
        UserError: If a task or its data is missing; raised before training, not hours later.
    """
    during = recipe.during
    if during is None:
        return None
    tasks = check_tasks(during.tasks or recipe.tasks)
    settings = EvaluationSettings(shots=during.shots, limit=during.limit)

    def score(
        model: MM1ForConditionalGeneration, processor: MM1Processor, folder: Path, name: str, model_hash: str
    ) -> tuple[dict[str, float], dict[str, list[dict[str, Any]]]]:
        results = evaluate_model(
            MM1Generator(model, processor, batch_size=recipe.batch_size, device=model.device),
            tasks,
            settings,
            out_dir=folder,
            model_name=name,
            model_hash=model_hash,
        )
        names = [f"{result['task']}/{result['shots']}-shot" for result in results]
        scores = {name: result["score"] for name, result in zip(names, results, strict=True)}
        return scores, {name: result["predictions"][:SAMPLES] for name, result in zip(names, results, strict=True)}

    return score
