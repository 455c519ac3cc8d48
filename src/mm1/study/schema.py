"""A study: one YAML file with a base recipe, axes, seeds and claims.

    name: document-mask
    question: Does it matter that attention stays inside a document?
    base: demo
    set: {train.steps: 600}
    axes:
      mask:
        inside: {data.document_mask: true}
        across: {data.document_mask: false}
    seeds: [0, 1, 2]
    claims:
      - claim: Attention kept inside documents lifts few-shot scores.
        better: {mask: inside}
        worse: {mask: across}
        shots: [4, 8]
        minimum: 2

An arm is one value of every axis (all combinations are run), or one of `variants` if a full grid is too large. Every
arm is trained once per seed. The seed determines the initial weights and the order of the data, so arms are paired.
`{seed}` in a value or in a command of `first` stands for the seed: so each seed gets an encoder or a base model of its
own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mm1.recipe import Section, Shelf, check_recipe
from mm1.study.claim import LOSS_STANDS_ALONE, Choice, Claim, Quantity

_RANKED = 5
"""Fewest arms whose ranks can tell of a correlation."""

Arm = tuple[tuple[str, str], ...]
"""An arm: (axis, value) for every axis, in the study's order."""

VARIANT = "variant"
"""Name of the only axis of a study that lists `variants`."""

PREPARING = ("data", "demo", "encoder", "pretrain", "sft")
"""Commands that `first` may name."""

Changes = dict[str, Any]
"""Keys of the recipe with their values, as in `{train.steps: 600}`."""


def _keys_as_words(value: Any) -> Any:
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else value


Values = Annotated[dict[str, Changes], BeforeValidator(_keys_as_words)]


class FigureRecipe(Section):
    """The figure: the mean score of `tasks` at `shots` over an axis, with a line for each value of another."""

    x: str = Field(description="The axis along x; `shots` for the number of shots.")
    metric: Quantity = Field("score", description="`loss`: the final training loss instead of scores.")
    lines: str | None = Field(None, description="A line for each value of this axis; `shots` for each number of shots.")
    tasks: list[str] | None = None
    shots: list[int] | None = None
    caption: str = ""

    @model_validator(mode="after")
    def _loss_stands_alone(self) -> FigureRecipe:
        if self.metric == "loss" and (
            "shots" in (self.x, self.lines) or self.tasks is not None or self.shots is not None
        ):
            raise ValueError(LOSS_STANDS_ALONE)
        return self


class PaperRow(Section):
    """The paper's figures for an arm, next to ours (means over the figure's tasks): its row, or scores given here."""

    arm: Choice
    row: str | None = Field(None, description="Name of a row of the paper's ablations (`mm1/paper/tables`).")
    scores: dict[int, float] = Field({}, description="Number of shots -> mean score.")
    certainty: Literal["stated", "recalled"] | None = Field(None, description="How certain the scores are.")

    @model_validator(mode="after")
    def _one_source(self) -> PaperRow:
        if (self.row is None) == (not self.scores) or bool(self.scores) != (self.certainty is not None):
            raise ValueError("paper: give either `row`, or `scores` with their `certainty`")
        return self


class Study(Section):
    """A study, checked key by key."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    question: str
    lesson: str = Field("", description="The paper's answer and its section.")
    base: str = Field(description="A packaged recipe's name, or a YAML file.")
    first: list[str] = Field(
        [],
        description="`mm1` commands that make what the runs share, such as `encoder clip-demo`. They are called before "
        "the runs and skip what exists already. One with `{seed}` is called for every seed, `--jobs` seeds at a time: "
        "what several seeds share comes before, in a command without `{seed}`.",
    )
    set: Changes = Field({}, description="Changes to the base recipe that all arms share.")
    axes: dict[str, Values] = Field({}, description="Axis -> value -> changes to the recipe; all combinations are run.")
    variants: Values = Field({}, description="Instead of axes: name -> changes to the recipe.")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="Fixed before the runs.")
    looks: list[int] = Field(
        [],
        description="The numbers of seeds after which the results were looked at, if seeds were added later, as in "
        "`[3, 5]`: a test is then corrected for its looks. Default: one look, at all seeds.",
    )
    minutes: float | None = Field(
        None, gt=0, description="Minutes of one run with all cores; the first estimate of the time that is left."
    )
    claims: list[Claim] = Field([])
    figure: FigureRecipe | None = None
    paper: list[PaperRow] = Field([])

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if bool(self.axes) == bool(self.variants):
            raise ValueError("a study has either `axes` or `variants`: give exactly one of them")
        if without := [axis for axis, values in self.axes.items() if not values]:
            raise ValueError(f"axes.{without[0]} has no values: give it at least one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} contain a number twice: remove one")
        if self.looks and (sorted(set(self.looks)) != self.looks or self.looks[-1] != len(self.seeds)):
            raise ValueError(
                f"looks: {self.looks} must rise and end with the number of seeds, {len(self.seeds)}: name every number "
                "of seeds at which the results were looked at"
            )
        if self.claims and len(self.seeds) < 2:
            raise ValueError(
                f"seeds: {self.seeds} are too few to test claims, which needs the spread over seeds: give at least "
                "two, better three"
            )
        for command in self.first:
            if not command.split() or command.split()[0] not in PREPARING:
                raise ValueError(
                    f"first: '{command}' can't prepare a study: name a command that begins with one of "
                    f"{', '.join(PREPARING)}"
                )
        for number, claim in enumerate(self.claims, start=1):
            for choice in claim.choices():
                self._check(choice, f"claim {number}")
            if claim.follows is not None and len(self.arms()) < _RANKED:
                raise ValueError(f"claim {number}: `follows` ranks the arms, so the study needs {_RANKED} or more")
        for row in self.paper:
            self._check(row.arm, "paper")
        for axis in filter(None, [self.figure and self.figure.x, self.figure and self.figure.lines]):
            if axis not in (*self.values, "shots"):
                raise ValueError(f"figure: there is no axis '{axis}': name one of {', '.join(self.values)}, shots")
        return self

    @property
    def values(self) -> dict[str, Values]:
        """The axes with their values; variants are the values of an axis `variant`."""
        return self.axes or {VARIANT: self.variants}

    def arms(self) -> dict[Arm, Changes]:
        """Return every arm with its changes to the base recipe, the shared ones included."""
        arms: dict[Arm, Changes] = {}
        for combination in itertools.product(*(values.items() for values in self.values.values())):
            arm = tuple(zip(self.values, (name for name, _ in combination), strict=True))
            changes = dict(self.set)
            for _, more in combination:
                changes |= more
            arms[arm] = changes
        return arms

    def _check(self, choice: Choice, where: str) -> None:
        for axis, value in choice.items():
            if axis not in self.values:
                raise ValueError(f"{where}: there is no axis '{axis}': name one of {', '.join(self.values)}")
            if value not in self.values[axis]:
                known = ", ".join(self.values[axis])
                raise ValueError(f"{where}: axis {axis} has no value '{value}': name one of {known}")


def for_seed(value: Any, seed: int) -> Any:
    """Return a value with `{seed}` in its texts replaced, also inside lists and mappings."""
    if isinstance(value, str):
        return value.replace("{seed}", str(seed))
    if isinstance(value, list):
        return [for_seed(each, seed) for each in value]
    return {key: for_seed(each, seed) for key, each in value.items()} if isinstance(value, dict) else value


def chosen(arm: Arm, choice: Choice) -> bool:
    """Return whether a choice includes an arm."""
    return choice.items() <= dict(arm).items()


def arm_name(arm: Arm) -> str:
    """Return an arm's name, as in `connector=average, tokens=16`."""
    return ", ".join(value if axis == VARIANT else f"{axis}={value}" for axis, value in arm)


STUDIES = Shelf("study", "mm1.study", "studies", inherits=False)


def packaged_studies() -> list[str]:
    """Return the names of the packaged studies, such as `laptop/connector`."""
    return STUDIES.names()


def packaged_worlds() -> list[str]:
    """Return the first parts of their names, such as `laptop`: the studies of one share a scoreboard."""
    return sorted({name.split("/")[0] for name in packaged_studies()})


def load_study(name_or_path: str) -> Study:
    """Read a study and check it.

    Args:
        name_or_path: A packaged study's name (`laptop/connector`) or a YAML file.

    Raises:
        UserError: If it can't be found or read, or a key or value is wrong.
    """
    return check_recipe(STUDIES.read(name_or_path), (), name_or_path, Study)
