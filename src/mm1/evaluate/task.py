r"""A task: one YAML file that says what is asked, with which shots, and how the answers are scored.

data: {corpus: easy-vqa/test, answers: answer}
prompt: "{image} Question: {question} Short answer:"
shots: {corpus: easy-vqa/test, sets: 16}
stop: ["\\n", ".", ",", "Question"]
metric: accuracy
"""

from __future__ import annotations

import difflib
import string
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mm1.errors import UserError
from mm1.evaluate.metrics import METRICS

Floor = Literal["majority", "swapped pictures"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ItemSource(_Strict):
    """Where items come from."""

    corpus: str = Field(description="`corpus/split` in the data directory, or the path of a split.")
    answers: str | None = Field(
        None, description="Field with the reference answer or answers; default: the document's learned text."
    )


class ShotSource(_Strict):
    """Where shots come from and how they are drawn."""

    corpus: str | None = Field(
        None, description="Split to draw from; default: the items' own, without the query's picture."
    )
    same: str | None = Field(None, description="Shots share the query's value of this field.")
    sets: int | None = Field(
        None,
        gt=0,
        description="Number of different shot sets (per value of `same`), each serving its share of the queries; "
        "default: every query has its own draw.",
    )


class Task(_Strict):
    """What is asked, with which shots, and how the answers are scored."""

    name: str
    description: str
    data: ItemSource
    prompt: str = Field(description="{image} stands for the item's pictures, {field} for a field's text.")
    answer: str = Field(" {answer}", description="How a shot's answer follows its prompt.")
    separator: str = Field("\n", description="What ends a shot.")
    shots: ShotSource = Field(default_factory=lambda: ShotSource.model_validate({}))
    stop: list[str] = Field(["\n"], description="Generation ends before the first of these (paper sec. 5).")
    max_new_tokens: int = Field(20, gt=0)
    metric: str
    also: list[str] = Field([], description="Further metrics, reported beside the one that counts.")
    postprocess: list[str] = Field([], description="Patterns: the prediction is cut before the first match.")
    floors: list[Floor] = []

    @model_validator(mode="after")
    def _known_metrics(self) -> Task:
        for name in (self.metric, *self.also):
            if name not in METRICS:
                raise ValueError(f"there is no metric '{name}': name one of {', '.join(sorted(METRICS))}")
        return self

    @property
    def prompt_fields(self) -> list[str]:
        """The fields that the prompt names, `image` left out."""
        names = [name for _, name, _, _ in string.Formatter().parse(self.prompt) if name]
        return [name for name in names if name != "image"]


def packaged_tasks() -> list[str]:
    """Return the names of the tasks that come with the package."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in resources.files("mm1.evaluate.tasks").iterdir()
        if entry.name.endswith(".yaml")
    )


def load_task(name_or_path: str) -> Task:
    """Read a task.

    Args:
        name_or_path: A packaged task's name (`easy-vqa`) or a YAML file.

    Raises:
        UserError: If there is no such task, or the file says something that a task can't be.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"{path}: no such task file: check the path")
        text = path.read_text()
    elif name_or_path in packaged_tasks():
        text = (resources.files("mm1.evaluate.tasks") / f"{name_or_path}.yaml").read_text()
    else:
        near = difflib.get_close_matches(name_or_path, packaged_tasks(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(packaged_tasks())}"
        raise UserError(f"task '{name_or_path}' is unknown: {hint}")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name_or_path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{name_or_path}: a task is a mapping of keys to values")
    try:
        return Task.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{name_or_path}: key '{key}': {message}") from None
