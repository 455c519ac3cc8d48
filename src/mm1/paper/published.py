"""Reads the paper's published numbers, and puts them beside a run's scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml

from mm1.errors import UserError

Certainty = Literal["stated", "recalled"]
"""`stated`: a source that was read states the number. `recalled`: it was not confirmed."""


@dataclass(frozen=True)
class Published:
    """A model's published score on a task.

    Attributes:
        model: The model's name, such as `mm1-3b`.
        task: The task's name here.
        shots: The number of shots.
        score: The score in percentage points (CIDEr x 100).
        certainty: How certain it is.
        source: Where it is published.
    """

    model: str
    task: str
    shots: int
    score: float
    certainty: Certainty
    source: str


@dataclass(frozen=True)
class Row:
    """A row of an ablation: the mean score over several tasks.

    Attributes:
        scores: Number of shots -> mean score.
        certainty: How certain the scores are.
        source: Where they are published.
        tasks: The tasks that the mean is over.
    """

    scores: Mapping[int, float]
    certainty: Certainty
    source: str
    tasks: tuple[str, ...]


def published_models() -> list[str]:
    """Return the names of the models with published scores."""
    return [model for table in ("few-shot", "fine-tuned") for model in _table(table)["models"]]


def published_scores(model: str) -> dict[tuple[str, int], Published]:
    """Return a model's published scores by task and number of shots.

    Raises:
        UserError: If there is no such model.
    """
    for name in ("few-shot", "fine-tuned"):
        table = _table(name)
        if model in table["models"]:
            return {
                (task, shots): Published(model, task, shots, score, row["certainty"], table["source"])
                for shots, row in table["models"][model].items()
                for task, score in row.items()
                if task != "certainty"
            }
    raise UserError(f"the paper has no scores of '{model}': name one of {', '.join(published_models())}")


def published_row(name: str) -> Row:
    """Return a row of the paper's ablations by its name, such as `encoder/aim-1b-224`.

    Raises:
        UserError: If there is no such row.
    """
    table = _table("ablations")
    row = table["rows"].get(name)
    if row is None:
        raise UserError(f"the paper's ablations have no row '{name}': name one of {', '.join(table['rows'])}")
    tasks = row.get("tasks", table["tasks"])
    return Row(row["scores"], row["certainty"], f"{table['source']}, {row['where']}", tuple(tasks))


def without_counterpart(model: str, tasks: Iterable[str]) -> str | None:
    """Return a sentence that names the tasks for which the paper has no score of a model; None if it has all."""
    known = {task for task, _ in published_scores(model)}
    missing = [task for task in dict.fromkeys(tasks) if task not in known]
    return f"The paper has no scores of {model} for {', '.join(missing)}." if missing else None


def protocol_differences(model: str, task: str, protocol: Mapping[str, Any], metric: str) -> list[str]:
    """Return what differs, or may differ, between a result's protocol and the paper's.

    Args:
        model: The published model.
        task: The task's name.
        protocol: The protocol of our result.
        metric: The metric of our result.
    """
    fine_tuned = model in _table("fine-tuned")["models"]
    paper = (_table("fine-tuned" if fine_tuned else "few-shot")["protocol"] or {}).get(task)
    items = protocol.get("items") or {}
    here = items.get("split")
    differences = []
    if paper is None:
        differences.append(f"split: the paper's isn't known, here {here}")
    elif paper.get("here") != here:
        differences.append(f"split: {paper['split']} ({paper['certainty']}), here {here}")
    if protocol.get("limit") is not None:
        differences.append(f"items: all, here {protocol['limit']}")
    shots, source = int(protocol.get("shots") or 0), str(protocol.get("shot_source") or "")
    if shots and "train" not in source:
        differences.append(f"shots: from training where there is some (recalled), here from {source}")
    if metric == "cider":
        differences.append("CIDEr: by nlg-eval (recalled), here as coco-caption computes it")
    if fine_tuned != (protocol.get("prompt_style") == "chat"):
        style = ("in a conversation", "plainly")
        differences.append(f"asked {style[not fine_tuned]}, here {style[fine_tuned]}")
    return differences


@cache
def _table(name: str) -> dict[str, Any]:
    file = resources.files("mm1.paper") / "tables" / f"{name}.yaml"
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content
