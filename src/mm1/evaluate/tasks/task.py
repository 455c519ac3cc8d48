r"""A task: one YAML file that says what is asked, with which shots, and how the answers are scored.

description: Questions on coloured shapes.
data: {corpus: easy-vqa/test, answers: answer}
prompt: "{image} Question: {question} Short answer:"
shots: {corpus: easy-vqa/test, sets: 4}
stop: ["\n", ".", ",", "Question"]
metric: accuracy
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mm1.errors import UserError
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.metrics.metric import mean
from mm1.evaluate.tasks.options import AnswerIs
from mm1.recipe import Shelf

Floor = Literal["majority", "swapped pictures"]
Rule = Literal["arc", "hellaswag", "lambada", "mathvista", "mmbench", "sciq", "webqs", "winogrande"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PictureSource(_Strict):
    """A second table that holds the pictures, where rows of the first only name them (GQA)."""

    file: str | None = Field(None, description="Parquet or JSONL file or files (pattern).")
    name: str | None = Field(None, description="Configuration of the same Hub data set.")
    key: str = Field(description="Column of the first table that names the picture.")
    id: str = Field("id", description="Column of the second table with those names.")
    column: str = Field("image", description="Column of the second table with the pictures.")


class IdTable(_Strict):
    """A table that names the items that count, one a row."""

    file: str | None = Field(None, description="Parquet or JSONL file or files (pattern).")
    hub: str | None = Field(None, description="Data set of the Hugging Face Hub.")
    name: str | None = Field(None, description="Its configuration.")
    split: str | None = Field(None, description="Its split.")
    column: str = Field(description="The column with the ids.")

    @model_validator(mode="after")
    def _one_source(self) -> IdTable:
        if (self.file is None) == (self.hub is None):
            raise ValueError("give one of file and hub")
        return self

    @property
    def title(self) -> str:
        """The table in a few words."""
        return "/".join(part for part in (self.file or self.hub, self.name, self.split) if part)


class ItemSource(_Strict):
    """Where items come from: one of `corpus`, `file` or `hub`."""

    corpus: str | None = Field(None, description="`corpus/split` in the data directory, or the path of a split.")
    file: str | None = Field(None, description="Parquet or JSONL file or files (pattern such as `val-*.parquet`).")
    hub: str | None = Field(None, description="Data set of the Hugging Face Hub.")
    name: str | None = Field(None, description="Its configuration.")
    split: str | None = Field(None, description="Its split.")
    images: str | list[str] = Field(
        "image", description="Column or columns with pictures; a column may hold a list, or nothing."
    )
    pictures: PictureSource | None = Field(None, description="Where the pictures are, if in a second table.")
    id: str | None = Field(None, description="Column with the item's id; default: the row's number.")
    answers: str | None = Field(
        None,
        description="Field with the reference answer or answers (`answers.answer`: of each answer its `answer`); "
        "default: a document's target text.",
    )
    options: str | list[str] | None = Field(
        None, description="Multiple choice: the column with the list of options, or a column for each."
    )
    answer_is: AnswerIs = Field("text", description="How the answer names the option: words, letter, or number from 0.")
    derive: Rule | None = Field(
        None, description="Rule of `mm1.evaluate.tasks.derive` that makes further fields from a row's."
    )
    where: dict[str, str | int | bool] = Field({}, description="Tables: only rows with these values in these columns.")
    only: str | IdTable | None = Field(
        None, description="File with the ids that count, one a line, or a table with a column of them; default: all."
    )

    @model_validator(mode="after")
    def _one_source(self) -> ItemSource:
        if sum(source is not None for source in (self.corpus, self.file, self.hub)) != 1:
            raise ValueError("give one of corpus, file and hub")
        if self.corpus is None and self.answers is None:
            raise ValueError("say which column holds the answers")
        return self

    @property
    def title(self) -> str:
        """The source in a few words."""
        place = self.corpus or self.file or str(self.hub)
        return "/".join(part for part in (place, self.name, self.split) if part)


class ShotSource(_Strict):
    """Where shots come from and how they are drawn. Columns are named as in `data`."""

    corpus: str | None = Field(None, description="Split to draw from.")
    file: str | None = Field(None, description="File or files to draw from.")
    split: str | None = Field(None, description="Split of the same Hub data set to draw from.")
    name: str | None = Field(None, description="Configuration of the same Hub data set to draw from.")
    only: str | IdTable | None = Field(None, description="The ids to draw from, as in `data`.")
    same: str | None = Field(None, description="Shots share the query's value of this field.")
    selection: Literal["random", "nearest"] = Field(
        "random", description="Or those with the pictures most like the query's (RICES), the nearest last."
    )
    text_only_at_zero: int = Field(
        0,
        ge=0,
        description="At 0 shots, so many shots without their pictures, as Flamingo reports it. MM1's 0 has none.",
    )
    sets: int | None = Field(
        None,
        gt=0,
        description="Number of different random shot sets (per value of `same`), each serving its share of the "
        "queries; default: every query has its own draw.",
    )

    @model_validator(mode="after")
    def _sets_are_random(self) -> ShotSource:
        if self.sets is not None and self.selection == "nearest":
            raise ValueError("nearest shots belong to a query: leave `sets` out")
        return self


class Task(_Strict):
    """What is asked, with which shots, and how the answers are scored."""

    name: str
    description: str
    data: ItemSource
    prompt: str = Field(description="{image} stands for the item's pictures, {field} for a field's text.")
    picture_mark: str | None = Field(
        None, description="What stands for the n-th picture in the fields' text, such as `<image {n}>` (MMMU)."
    )
    chat_prompt: str | None = Field(
        None, description="What a model fine-tuned on conversations is asked instead; default: `prompt`."
    )
    answer: str = Field(
        " {answer}",
        description="How a shot's answer follows its prompt; {field} stands for a field's text (chain of thought: "
        "`' {reasoning} Answer: {answer}'`).",
    )
    after: str | None = Field(
        None,
        description="The prediction is what follows the last of these words, or all where they don't come (chain of "
        "thought: `Answer:`).",
    )
    likelihood: Literal["sum", "per character", "greedy"] | None = Field(
        None,
        description="Instead of generating, choose the option that is likeliest as the answer: by its log-likelihood, "
        "or that per character. `greedy`: the option counts as chosen if greedy decoding would write it.",
    )
    continuation: str | None = Field(
        None, description="With {option} in the prompt: what follows it and is scored (WinoGrande)."
    )
    separator: str = Field("\n", description="What ends a shot.")
    shots: ShotSource = Field(default_factory=lambda: ShotSource.model_validate({}))
    stop: list[str] = Field(["\n"], description="Generation ends before the first of these (paper sec. 5).")
    max_new_tokens: int = Field(20, gt=0)
    metric: str
    together: str | None = Field(
        None, description="Items with the same value of this field count as one, right if all are (circular MMBench)."
    )
    also: list[str] = Field([], description="Further metrics, reported beside the one that counts.")
    postprocess: list[str] = Field([], description="Patterns: the prediction is cut before the first match.")
    floors: list[Floor] = []

    @model_validator(mode="after")
    def _options_to_choose_from(self) -> Task:
        if self.likelihood and self.data.options is None:
            raise ValueError("likelihood chooses among options: say in data which field holds them")
        if ("{option}" in self.prompt) != (self.continuation is not None):
            raise ValueError("{option} in the prompt and continuation belong together")
        return self

    @model_validator(mode="after")
    def _known_metrics(self) -> Task:
        for name in (self.metric, *self.also):
            if name not in METRICS:
                raise ValueError(f"there is no metric '{name}': name one of {', '.join(sorted(METRICS))}")
            if self.together is not None and METRICS[name].score is not mean:
                raise ValueError(f"{name} is no mean over items: it can't be counted `together`")
        return self

    @property
    def pool(self) -> ItemSource:
        """Where shots come from: what `shots` says, else the items' own source, never the query's picture."""
        places = {
            key: value for key in ("corpus", "file", "split", "name") if (value := getattr(self.shots, key)) is not None
        }
        if not places and self.shots.only is None:
            return self.data
        other = {"corpus": None, "file": None} if {"corpus", "file"} & places.keys() else {}
        return self.data.model_copy(update={**other, **places, "only": self.shots.only})


TASKS = Shelf("task", "mm1.evaluate.tasks")


def packaged_tasks() -> list[str]:
    """Return the names of the tasks that come with the package."""
    return TASKS.names()


def load_task(name_or_path: str) -> Task:
    """Read a task.

    Args:
        name_or_path: A packaged task's name (`easy-vqa`) or a YAML file.

    Raises:
        UserError: If there is no such task, or the file says something that a task can't be.
    """
    try:
        return Task.model_validate({"name": Path(name_or_path).stem, **TASKS.read(name_or_path)})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{name_or_path}: key '{key}': {message}") from None
