"""Reads a run's directory into dataclasses, whether or not the run is finished.

Nothing here requires a file: `Run.absent` names missing files, `Run.problems` names files that can't be read, and the
page shows both.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mm1.errors import UserError
from mm1.nearest import nearest_path
from mm1.plan.figures import with_present_names

PNG_SIGNATURE = "iVBORw0KGgo"  # base64 of the first eight bytes of every PNG file


@dataclass(frozen=True)
class Metrics:
    """The training log as columns.

    Attributes:
        columns: float64 arrays (n,), one for each key of metrics.jsonl; NaN where a line lacks the key. `step` is
            always there and strictly increasing; if a resumed run repeats steps, the later line counts.
    """

    columns: Mapping[str, NDArray[np.float64]]

    @property
    def steps(self) -> NDArray[np.float64]:
        """The logged optimizer steps, (n,)."""
        return self.columns["step"]

    def last(self, name: str) -> float | None:
        """Return the last finite value of a column, or None."""
        values = self.columns.get(name, np.empty(0))
        finite = values[np.isfinite(values)]
        return float(finite[-1]) if len(finite) else None

    def losses(self) -> dict[str, NDArray[np.float64]]:
        """Return the loss columns: `all kinds` first (if more than one is logged), then every kind."""
        kinds = {
            key.removeprefix("loss/"): values
            for key, values in self.columns.items()
            if key.startswith("loss/") and np.isfinite(values).any()
        }
        total = {"all kinds": self.columns["loss"]} if "loss" in self.columns and len(kinds) != 1 else {}
        return {**total, **kinds}


@dataclass(frozen=True)
class Floor:
    """A score that is reached without looking, for comparison with the model's."""

    name: str
    score: float
    interval: tuple[float, float] | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Prediction:
    """One item: the model's answer and the references.

    `image` is the query's picture as a base64 PNG if the result has it; `error` says why there is no answer.
    """

    id: str
    prompt: str
    prediction: str
    answers: tuple[str, ...]
    score: float | None
    image: str | None
    error: str | None = None


@dataclass(frozen=True)
class Score:
    """One task at one number of shots; scores, intervals and floors are shares (CIDEr: 1.0 = 100).

    `also` has the scores of other metrics on the same answers, by name; `perfect` is the score of a perfect model where
    it isn't 1; `right_answer` the mean log-likelihood of the right answers, if the result has it.
    """

    task: str
    shots: int
    metric: str
    score: float
    interval: tuple[float, float] | None
    items: int
    errors: int
    floors: tuple[Floor, ...]
    also: Mapping[str, float]
    protocol: Mapping[str, Any]
    example_prompt: tuple[Mapping[str, str], ...]
    predictions: tuple[Prediction, ...]
    perfect: float | None = None
    right_answer: float | None = None


@dataclass
class Run:
    """The content of the page.

    Attributes:
        directory: The run's directory.
        recipe_text: The text of recipe.yaml; empty if absent.
        recipe: The same as a mapping; empty if it isn't one.
        environment: The content of environment.json.
        plan: The content of plan/plan.json.
        model_config: The content of model/config.json.
        metrics: The training log; None before the first step is logged.
        scores: The scores by task (in the recipe's order), then by shots.
        absent: Missing files: file -> the content that it will have.
        problems: Sentences about files that can't be read.
    """

    directory: Path
    recipe_text: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    model_config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Metrics | None = None
    scores: list[Score] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The recipe's name, or the directory's."""
        name = self.recipe.get("name")
        return name if isinstance(name, str) and name else self.directory.resolve().name

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters by part of the model."""
        parts = mapping(self.environment, "parameters")
        return {str(part): int(n) for part, value in parts.items() if (n := number(value)) is not None}

    @property
    def planned_steps(self) -> int | None:
        """The number of optimizer steps in the plan or, without a plan, in the recipe."""
        steps = number(self.plan.get("steps")) or number(mapping(self.recipe, "train").get("steps"))
        return int(steps) if steps else None

    @property
    def finished(self) -> bool:
        """Whether the last planned step is logged or the trained model is saved."""
        reached = self.metrics and self.planned_steps and self.metrics.steps[-1] >= self.planned_steps
        return bool(reached or self.model_config)

    def by_task(self) -> dict[str, list[Score]]:
        """Return the scores grouped by task, with increasing shots."""
        groups: dict[str, list[Score]] = {}
        for score in self.scores:
            groups.setdefault(score.task, []).append(score)
        return groups


def number(value: Any) -> float | None:
    """Return `value` as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return `content[key]` if it is a mapping, else an empty one."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def read_run(directory: Path, scores: Path | None = None) -> Run:
    """Read a run's directory, whether or not the run is finished.

    Args:
        directory: The run's directory.
        scores: The folder of the scores; default: `scores` in the run's directory.

    Raises:
        UserError: If the directory doesn't exist.
    """
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such run directory: name a folder that `mm1 pretrain` wrote{nearest_path(directory)}"
        )
    run = Run(directory)
    run.recipe_text = _read_text(run, "recipe.yaml", "the recipe") or ""
    run.recipe = _parse_recipe(run)
    run.environment = _read_json(run, "environment.json", "the machine and the versions")
    plan = _read_json(run, "plan/plan.json", "the mixture and the packing")
    run.plan = plan and with_present_names(plan)
    run.metrics = _read_metrics(run)
    run.model_config = _read_json(run, "model/config.json", "the trained model")
    run.scores = _read_scores(run, scores or directory / "scores")
    return run


def _read_text(run: Run, file: str, content: str) -> str | None:
    """Return a file's text; if it is missing, note its `content` as absent."""
    try:
        return (run.directory / file).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        run.absent[file] = content
    except OSError as error:
        run.problems.append(f"{file} can't be read ({error.strerror}).")
    return None


def _read_json(run: Run, file: str, content: str) -> dict[str, Any]:
    text = _read_text(run, file, content)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    run.problems.append(f"{file} is not a JSON object, so this page leaves it out.")
    return {}


def _parse_recipe(run: Run) -> dict[str, Any]:
    # Not `load_recipe`: an old run's recipe may not fit today's schema, and the page shows it all the same.
    try:
        content = yaml.safe_load(run.recipe_text)
    except (yaml.YAMLError, ValueError, RecursionError):
        run.problems.append("recipe.yaml is not valid YAML.")
        return {}
    return content if isinstance(content, dict) else {}


def _read_metrics(run: Run) -> Metrics | None:
    text = _read_text(run, "metrics.jsonl", "the loss curves")
    if text is None:
        return None
    records: dict[float, dict[str, Any]] = {}
    bad = 0
    lines = text.splitlines(keepends=True)
    for line in lines:
        try:
            record = json.loads(line)
            step = number(record["step"])
            if step is None:
                raise ValueError("no step")
            records[step] = record
        except (ValueError, KeyError, TypeError, RecursionError):
            # A last line without a line break is still being written.
            bad += line.strip() != "" and line.endswith("\n")
    if bad:
        run.problems.append(f"{bad} of {len(lines)} lines of metrics.jsonl can't be read and are left out.")
    if not records:
        run.absent["metrics.jsonl"] = "the loss curves"
        return None
    ordered = [records[step] for step in sorted(records)]
    keys = sorted({key for record in ordered for key in record})
    columns = {key: np.array([_float(record.get(key)) for record in ordered]) for key in keys}
    return Metrics(columns)


def _float(value: Any) -> float:
    value = number(value)
    return math.nan if value is None else value


def _read_scores(run: Run, folder: Path) -> list[Score]:
    scores = []
    for path in sorted(folder.glob("*.json")):
        file = os.path.relpath(path, run.directory)
        content = _read_json(run, file, "a score")
        if not content:
            continue
        try:
            scores.append(_parse_score(content))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            run.problems.append(f"{file} is not a result, so it is left out ({type(error).__name__}: {error}).")
    if not scores:
        run.absent["scores/"] = "the model's scores"
    tasks = mapping(run.recipe, "evaluate").get("tasks")
    order = [str(task) for task in tasks] if isinstance(tasks, list) else []
    return sorted(scores, key=lambda s: (order.index(s.task) if s.task in order else len(order), s.task, s.shots))


def _parse_score(content: Mapping[str, Any]) -> Score:
    score = number(content["score"])
    if score is None:
        raise ValueError(f"the score is {content['score']!r}")
    floors = (_parse_floor(str(name), floor) for name, floor in mapping(content, "floors").items())
    also = ((str(name), _parse_floor(str(name), other)) for name, other in mapping(content, "also").items())
    return Score(
        task=str(content["task"]),
        shots=int(content["shots"]),
        metric=str(content.get("metric", "score")),
        score=score,
        interval=_interval(content.get("interval")),
        items=int(content.get("items", 0)),
        errors=int(content.get("errors", 0)),
        floors=tuple(floor for floor in floors if floor),
        perfect=number(content.get("perfect")),
        right_answer=number(mapping(content, "right_answer").get("log_likelihood")),
        also={name: floor.score for name, floor in also if floor},
        protocol=mapping(content, "protocol"),
        example_prompt=tuple(_parse_part(part) for part in content.get("example_prompt") or ()),
        predictions=tuple(_parse_prediction(item) for item in content.get("predictions") or ()),
    )


def _parse_floor(name: str, content: Any) -> Floor | None:
    if not isinstance(content, Mapping) or (score := number(content.get("score"))) is None:
        return None
    answer = content.get("answer")
    return Floor(name, score, _interval(content.get("interval")), None if answer is None else str(answer))


def _parse_part(part: Mapping[str, Any]) -> dict[str, str]:
    if "text" in part:
        return {"text": str(part["text"])}
    image = _picture(part.get("image"))
    return {"image": image} if image else {"text": "<image>"}


def _parse_prediction(item: Mapping[str, Any]) -> Prediction:
    answers = item.get("answers") or []
    return Prediction(
        id=str(item.get("id", "")),
        prompt=str(item.get("prompt", "")),
        prediction=str(item.get("prediction") or "").strip(),
        answers=tuple(str(a).strip() for a in ([answers] if isinstance(answers, str) else answers)),
        score=number(item.get("score")),
        image=_picture(item.get("image")),
        error=str(item["error"]) if item.get("error") else None,
    )


def _picture(value: Any) -> str | None:
    return value if isinstance(value, str) and value.startswith(PNG_SIGNATURE) else None


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)
