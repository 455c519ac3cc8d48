r"""A task: one YAML file with the data, the prompt, the shots and the metric.

description: Questions on coloured shapes.
data: {corpus: easy-vqa/test, answers: answer}
prompt: "{image} Question: {question} Short answer:"
shots: {corpus: easy-vqa/test, sets: 4}
stop: ["\n", ".", ",", "Question"]
metric: accuracy
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mm1.errors import UserError
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.metrics.metric import mean
from mm1.nearest import did_you_mean
from mm1.recipe import Shelf

AnswerIs = Literal["text", "letter", "index"]
Floor = Literal["majority", "swapped pictures"]
Rule = Literal["arc", "hellaswag", "lambada", "mathvista", "mmbench", "sciq", "webqs", "winogrande"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PictureSource(_Strict):
    """A second table with the pictures, if rows of the first one only name them (GQA)."""

    file: str | None = Field(None, description="Parquet or JSONL file or files (pattern).")
    name: str | None = Field(None, description="Configuration of the same Hub dataset.")
    key: str = Field(description="Column of the first table with the picture's name.")
    id: str = Field("id", description="Column of the second table with the picture's name.")
    column: str = Field("image", description="Column of the second table with the pictures.")


class IdTable(_Strict):
    """A table with the ids of the items that count, one per row."""

    file: str | None = Field(None, description="Parquet or JSONL file or files (pattern).")
    hub: str | None = Field(None, description="Dataset of the Hugging Face Hub.")
    name: str | None = Field(None, description="Configuration of the Hub dataset.")
    split: str | None = Field(None, description="Split of the Hub dataset.")
    column: str = Field(description="Column with the ids.")

    @model_validator(mode="after")
    def _one_source(self) -> IdTable:
        if (self.file is None) == (self.hub is None):
            raise ValueError("give either file or hub")
        return self

    @property
    def title(self) -> str:
        """A short name of the table."""
        return "/".join(part for part in (self.file or self.hub, self.name, self.split) if part)


class ItemSource(_Strict):
    """The source of items: one of `corpus`, `file` or `hub`."""

    corpus: str | None = Field(None, description="`corpus/split` in the data directory, or the path of a split.")
    file: str | None = Field(None, description="Parquet or JSONL file or files (pattern such as `val-*.parquet`).")
    hub: str | None = Field(None, description="Dataset of the Hugging Face Hub.")
    name: str | None = Field(None, description="Configuration of the Hub dataset.")
    split: str | None = Field(None, description="Split of the Hub dataset.")
    images: str | list[str] = Field(
        "image", description="Column or columns with pictures; a cell may be a list, or empty."
    )
    pictures: PictureSource | None = Field(None, description="A second table that holds the pictures.")
    id: str | None = Field(None, description="Column with the item's id; default: the row's number.")
    answers: str | None = Field(
        None,
        description="Field with the reference answer or answers (`answers.answer`: the `answer` of each of them); "
        "default: a document's target text.",
    )
    options: str | list[str] | None = Field(
        None, description="Multiple choice: the column with the list of options, or one column per option."
    )
    answer_is: AnswerIs = Field("text", description="How the answer names the option: text, letter, or index from 0.")
    derive: Rule | None = Field(
        None, description="Rule of `mm1.evaluate.tasks.derive` that derives further fields from a row."
    )
    where: dict[str, str | int | bool] = Field({}, description="Tables: use only rows with these values by column.")
    only: str | IdTable | None = Field(
        None, description="File with the ids to use, one per line, or a table with a column of ids; default: all."
    )

    @model_validator(mode="after")
    def _one_source(self) -> ItemSource:
        if sum(source is not None for source in (self.corpus, self.file, self.hub)) != 1:
            raise ValueError("give exactly one of corpus, file and hub")
        if self.corpus is None and self.answers is None:
            raise ValueError("answers is missing: name the column with the answers")
        return self

    @property
    def title(self) -> str:
        """A short name of the source."""
        source = self.corpus or self.file or str(self.hub)
        return "/".join(part for part in (source, self.name, self.split) if part)


class ShotSource(_Strict):
    """The source of shots and the way to draw them. Columns have the same names as in `data`."""

    corpus: str | None = Field(None, description="Split to draw from.")
    file: str | None = Field(None, description="File or files to draw from.")
    split: str | None = Field(None, description="Split of the same Hub dataset to draw from.")
    name: str | None = Field(None, description="Configuration of the same Hub dataset to draw from.")
    only: str | IdTable | None = Field(None, description="Ids to draw from, as in `data`.")
    same: str | None = Field(None, description="Shots have the query's value of this field.")
    selection: Literal["random", "nearest"] = Field(
        "random", description="`nearest`: shots with the pictures most similar to the query's (RICES), nearest last."
    )
    text_only_at_zero: int = Field(
        0,
        ge=0,
        description="At 0 shots, show this many shots without their pictures, as Flamingo does; MM1 shows none.",
    )
    sets: int | None = Field(
        None,
        gt=0,
        description="Number of random shot sets (per value of `same`) that the queries share; default: every query has "
        "its own draw.",
    )

    @model_validator(mode="after")
    def _sets_are_random(self) -> ShotSource:
        if self.sets is not None and self.selection == "nearest":
            raise ValueError("nearest shots depend on the query, so queries can't share `sets`: leave `sets` out")
        return self


class Task(_Strict):
    """The data, the prompt, the shots and the metric of a task."""

    name: str
    description: str
    data: ItemSource
    prompt: str = Field(description="Template: {image} stands for the item's pictures, {field} for a field's text.")
    picture_mark: str | None = Field(
        None, description="Mark for the n-th picture in the fields' text, such as `<image {n}>` (MMMU)."
    )
    chat_prompt: str | None = Field(None, description="Template for chat models; default: `prompt`.")
    answer: str = Field(
        " {answer}",
        description="Template of a shot's answer after its prompt; {field} stands for a field's text (chain of "
        "thought: `' {reasoning} Answer: {answer}'`).",
    )
    after: str | None = Field(
        None,
        description="The prediction is the text after the last occurrence of this one, or all text without it (chain "
        "of thought: `Answer:`).",
    )
    likelihood: Literal["sum", "per character", "greedy"] | None = Field(
        None,
        description="Choose the likeliest option instead of generating: by its log-likelihood (`sum`), or by that `per "
        "character`. `greedy`: an option is chosen if greedy decoding writes it.",
    )
    continuation: str | None = Field(
        None, description="With {option} in the prompt: template of the scored text after it (WinoGrande)."
    )
    separator: str = Field("\n", description="Text that ends a shot.")
    plain: bool = Field(
        False, description="Prompt models that take turns as pre-trained ones, as `evaluate.plain` does for all tasks."
    )
    shots: ShotSource = Field(default_factory=lambda: ShotSource.model_validate({}))
    stop: list[str] = Field(["\n"], description="Generation ends before the first of these (paper sec. 5).")
    max_new_tokens: int = Field(20, gt=0)
    metric: str
    together: str | None = Field(
        None, description="Items with the same value of this field count as one: right if all are (circular MMBench)."
    )
    subsets: dict[str, dict[str, list[str | int | bool]]] = Field(
        {}, description="Items whose score is reported apart as well: a subset's name -> field -> its values."
    )
    also: list[str] = Field([], description="Further metrics to report besides `metric`.")
    postprocess: list[str] = Field([], description="Patterns; the prediction ends before the first match.")
    floors: list[Floor] = []

    @model_validator(mode="after")
    def _options_to_choose_from(self) -> Task:
        if self.likelihood and self.data.options is None:
            raise ValueError("likelihood chooses among options: name their field as data.options")
        if ("{option}" in self.prompt) != (self.continuation is not None):
            raise ValueError("{option} in the prompt needs the key continuation, and the key needs {option}: give both")
        return self

    @model_validator(mode="after")
    def _names_and_words(self) -> Task:
        for pattern in self.postprocess:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"postprocess: '{pattern}' is no regular expression ({error})") from None
        if "" in self.stop:
            raise ValueError("stop: an empty text stops before the first word: leave it out, or write stop: []")
        if self.after == "":
            raise ValueError("after: an empty text stands everywhere: leave the key out")
        if not self.name.strip() or self.name.startswith(".") or set(self.name) & set("/\\"):
            raise ValueError(f"name: '{self.name}' is part of the name of the result's file: take letters and digits")
        return self

    @model_validator(mode="after")
    def _subsets_of_items(self) -> Task:
        if self.subsets and self.together is not None:
            raise ValueError("subsets are of single items, and `together` makes several count as one: leave one out")
        return self

    @model_validator(mode="after")
    def _known_metrics(self) -> Task:
        for name in (self.metric, *self.also):
            if name not in METRICS:
                raise ValueError(f"there is no metric '{name}': {did_you_mean(name, sorted(METRICS))}")
            if self.together is not None and METRICS[name].score is not mean:
                raise ValueError(f"metric {name} is not a mean over items: leave `together` out, or change the metric")
        return self

    @property
    def pool(self) -> ItemSource:
        """The source of shots: the one that `shots` names, else the items' source."""
        named = {
            key: value for key in ("corpus", "file", "split", "name") if (value := getattr(self.shots, key)) is not None
        }
        if not named and self.shots.only is None:
            return self.data
        other = {"corpus": None, "file": None} if {"corpus", "file"} & named.keys() else {}
        return self.data.model_copy(update={**other, **named, "only": self.shots.only})


TASKS = Shelf("task", "mm1.evaluate.tasks")


def packaged_tasks() -> list[str]:
    """Return the names of the packaged tasks."""
    return TASKS.names()


def load_task(name_or_path: str) -> Task:
    """Read a task.

    Args:
        name_or_path: A packaged task's name (`easy-vqa`) or a YAML file.

    Raises:
        UserError: If the task doesn't exist, or a key or value is wrong.
    """
    try:
        return Task.model_validate({"name": Path(name_or_path).stem, **TASKS.read(name_or_path)})
    except ValidationError as error:
        # A misspelt key may also be reported as missing; the misspelling says more, so it comes first.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join(str(step) for step in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            message = f"there is no such key: {did_you_mean(key, Task.model_fields)}"
        raise UserError(f"{name_or_path}: key '{key}': {message}") from None
