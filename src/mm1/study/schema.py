"""A study: one YAML file with a base recipe, what is varied, over which seeds, and what is claimed.

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

An arm is one value of every axis (all combinations are run), or one of `variants` where a grid would be
too much. Every arm is trained once for each seed; the seed fixes fresh weights and the order of the data, so
arms are paired.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mm1.recipe import Section, Shelf, check_recipe

Arm = tuple[tuple[str, str], ...]
"""What makes an arm: (axis, value) for every axis, in the study's order."""

VARIANT = "variant"
"""Name of the one axis of a study that lists its variants."""

PREPARING = ("data", "demo", "encoder", "pretrain", "sft")
"""Commands that make what runs share."""

Changes = dict[str, Any]
"""Keys of the recipe with their values, as in `{train.steps: 600}`."""


def _as_words(value: Any) -> Any:
    """Take numbers for values of an axis: `{tokens: 16}` is `{tokens: "16"}`."""
    return {k: str(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _keys_as_words(value: Any) -> Any:
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else value


Choice = Annotated[dict[str, str], BeforeValidator(_as_words)]
"""A choice of arms: a value for some axes; arms that differ in the others are averaged over."""

Quantity = Literal["score", "loss"]
"""What arms are compared by."""

_LOSS_STANDS_ALONE = "the training loss has no tasks and no shots: leave them out, or `metric: loss`"

Values = Annotated[dict[str, Changes], BeforeValidator(_keys_as_words)]


class Contrast(Section):
    """The difference between two choices of arms."""

    better: Choice
    worse: Choice


class Claim(Section):
    """A sentence that a study's runs can speak for or against.

    The quantity is the mean score over `tasks` and `shots`, in percentage points of each metric's unit. With
    `better` and `worse` the claim is that their difference exceeds `minimum`; with `than` as well, that it
    exceeds that other difference by `minimum`; with `worse_shots`, that `better` at `shots` exceeds `worse` at
    those; with `alike`, that no two of the choices differ by more than `within`. With `metric: loss` the quantity
    is the training loss at the end, in nats a token, and the better arm is the one that has less of it.
    """

    claim: str = Field(description="The sentence.")
    metric: Quantity = Field("score", description="`loss`: the training loss, where arms train on the same data.")
    better: Choice | None = None
    worse: Choice | None = None
    than: Contrast | None = Field(None, description="Another difference that this one is to exceed.")
    alike: list[Choice] | None = Field(None, description="Choices that are said not to differ.")
    within: float | None = Field(None, gt=0, description="With `alike`: how much counts as no difference.")
    minimum: float = Field(0.0, ge=0, description="The least difference worth claiming, in percentage points or nats.")
    tasks: list[str] | None = Field(None, description="Default: all that the runs are scored on.")
    shots: list[int] | None = Field(None, description="Default: all that the runs are scored at.")
    worse_shots: list[int] | None = Field(None, description="Of `worse`, where it is compared at other shots.")

    @model_validator(mode="after")
    def _one_form(self) -> Claim:
        compared = self.better is not None and self.worse is not None
        if compared == (self.alike is not None) or (self.better is None) != (self.worse is None):
            raise ValueError("a claim has `better` and `worse`, or `alike` and `within`")
        if self.alike is not None and (len(self.alike) < 2 or self.within is None):
            raise ValueError("`alike` takes two choices or more, and `within` says what counts as no difference")
        if self.than is not None and self.alike is not None:
            raise ValueError("`than` goes with `better` and `worse`")
        if self.worse_shots is not None and (self.shots is None or self.worse is None):
            raise ValueError("`worse_shots` goes with `better`, `worse` and `shots`")
        if self.better is not None and self.better == self.worse and self.worse_shots is None:
            raise ValueError("`better` and `worse` are the same arms: give `worse_shots`, or other arms")
        if self.metric == "loss" and (self.tasks is not None or self.shots is not None):
            raise ValueError(_LOSS_STANDS_ALONE)
        return self

    def choices(self) -> list[Choice]:
        """Return every choice of arms that the claim speaks of."""
        pairs = [self.better, self.worse, *((self.than.better, self.than.worse) if self.than else ())]
        return self.alike or [choice for choice in pairs if choice is not None]


class FigureRecipe(Section):
    """What the figure shows: the mean score of `tasks` at `shots` over an axis, a line for each value of another."""

    x: str = Field(description="The axis along x; `shots` for the number of shots.")
    metric: Quantity = Field("score", description="`loss`: the training loss at the end in place of scores.")
    lines: str | None = Field(None, description="A line for each value of this axis; `shots` for each number of shots.")
    tasks: list[str] | None = None
    shots: list[int] | None = None
    caption: str = ""

    @model_validator(mode="after")
    def _loss_stands_alone(self) -> FigureRecipe:
        if self.metric == "loss" and (
            "shots" in (self.x, self.lines) or self.tasks is not None or self.shots is not None
        ):
            raise ValueError(_LOSS_STANDS_ALONE)
        return self


class PaperRow(Section):
    """What the paper reports for an arm, to stand beside ours."""

    arm: Choice
    scores: dict[int, float] = Field(description="Number of shots -> the paper's mean score.")
    certainty: Literal["stated", "recalled"] = Field(description="How sure the figure is (see the study's source).")


class Study(Section):
    """A study, checked key by key."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    question: str
    lesson: str = Field("", description="What the paper says about it, and where.")
    base: str = Field(description="A packaged recipe's name, or a YAML file.")
    first: list[str] = Field(
        [],
        description="`mm1` commands that make what the runs share, such as `encoder clip-demo`: each is called before "
        "runs are made, and keeps what is there.",
    )
    set: Changes = Field({}, description="Changes to the base recipe that all arms share.")
    axes: dict[str, Values] = Field({}, description="Axis -> value -> changes to the recipe; all combinations are run.")
    variants: Values = Field({}, description="Instead of axes: name -> changes to the recipe.")
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    minutes: float | None = Field(None, gt=0, description="Of one run alone, for an estimate before any is timed.")
    claims: list[Claim] = Field([])
    figure: FigureRecipe | None = None
    paper: list[PaperRow] = Field([])

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if bool(self.axes) == bool(self.variants):
            raise ValueError("a study has `axes` or `variants`, one of the two")
        if any(not values for values in self.axes.values()):
            raise ValueError("an axis without values: give it at least one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} has one twice")
        if self.claims and len(self.seeds) < 2:
            raise ValueError(
                f"too few seeds for the claims' test: {len(self.seeds)}; the spread over seeds can't be told from one: "
                "give two at least, better three"
            )
        for command in self.first:
            if not command.split() or command.split()[0] not in PREPARING:
                raise ValueError(f"first: '{command}' is no command that prepares: take one of {', '.join(PREPARING)}")
        for number, claim in enumerate(self.claims, start=1):
            for choice in claim.choices():
                self._check(choice, f"claim {number}")
        for row in self.paper:
            self._check(row.arm, "paper")
        for axis in filter(None, [self.figure and self.figure.x, self.figure and self.figure.lines]):
            if axis not in (*self.values, "shots"):
                raise ValueError(f"figure: there is no axis '{axis}': take one of {', '.join(self.values)}, shots")
        return self

    @property
    def values(self) -> dict[str, Values]:
        """The axes with their values; variants are the one axis `variant`."""
        return self.axes or {VARIANT: self.variants}

    def arms(self) -> dict[Arm, Changes]:
        """Return every arm with its changes to the base recipe, those that all arms share included."""
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
                raise ValueError(f"{where}: there is no axis '{axis}': take one of {', '.join(self.values)}")
            if value not in self.values[axis]:
                known = ", ".join(self.values[axis])
                raise ValueError(f"{where}: axis {axis} has no value '{value}': take one of {known}")


def chosen(arm: Arm, choice: Choice) -> bool:
    """Whether an arm is among those that a choice stands for."""
    return choice.items() <= dict(arm).items()


def arm_name(arm: Arm) -> str:
    """Return an arm's name, as in `connector=average, tokens=16`."""
    return ", ".join(value if axis == VARIANT else f"{axis}={value}" for axis, value in arm)


STUDIES = Shelf("study", "mm1.study", "studies", inherits=False)


def packaged_studies() -> list[str]:
    """Return the names of the studies that come with the package, such as `laptop/connector`."""
    return STUDIES.names()


def load_study(name_or_path: str) -> Study:
    """Read a study and check it.

    Args:
        name_or_path: A packaged study's name (`laptop/connector`) or a YAML file.

    Raises:
        UserError: If it can't be found or read, or any key or value is wrong.
    """
    return check_recipe(STUDIES.read(name_or_path), (), name_or_path, Study)
