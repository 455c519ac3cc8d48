"""A claim: a sentence that a study's runs can support or refute, with all that decides it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mm1.recipe import Section


def _as_words(value: Any) -> Any:
    """Convert numbers to an axis's values: `{tokens: 16}` becomes `{tokens: "16"}`."""
    return {k: str(v) for k, v in value.items()} if isinstance(value, Mapping) else value


Choice = Annotated[dict[str, str], BeforeValidator(_as_words)]
"""A choice of arms: a value for some axes; arms that differ in the others are averaged over."""

Quantity = Literal["score", "loss", "log-likelihood"]
"""The quantity by which arms are compared."""

Measure = Literal["points", "nats", "correlation"]
"""What effects are measured in."""

Unit = Literal["run", "encoder", "pre-training", "base model"]
"""What each seed has of its own, besides the initial weights and the order of the data (`run`)."""

Kind = Literal["direct", "proxy", "built-in"]
"""How a claim stands to the paper's lesson.

`direct`: it asks the lesson's question. `proxy`: it asks for something that should go with it (a loss for a score).
`built-in`: the design decides it, because only one of the arms saw the task's questions, or pictures and texts of its
domain; such a claim shows that the pipeline works, and counts for nothing else.
"""

LOSS_STANDS_ALONE = "the training loss has no tasks and no shots: leave these keys out, or leave `metric: loss` out"


class Contrast(Section):
    """The difference between two choices of arms."""

    better: Choice
    worse: Choice


class Written(Section):
    """When a claim was written in the form in which it is judged."""

    date: datetime.date
    commit: str | None = Field(None, pattern=r"^[0-9a-f]{7,40}$", description="The commit that has it first.")

    def __str__(self) -> str:
        return f"{self.date}" + (f", {self.commit}" if self.commit else "")


class Claim(Section):
    """A sentence that a study's runs can support or refute.

    The quantity is the mean score over `tasks` and `shots`, in percentage points of each metric's unit. With `better`
    and `worse` the claim is that their difference exceeds `minimum`. With `than` in addition, the difference exceeds
    that other difference by `minimum`. With `worse_shots`, `better` at `shots` exceeds `worse` at `worse_shots`. With
    `alike`, no two of the choices differ by more than `within`. With `follows: loss`, arms with a lower training loss
    score higher: the rank correlation over all arms, within a seed, exceeds `minimum`. With `metric: loss` the quantity
    is the final training loss in nats per token, and the better arm has the lower loss. With `metric: log-likelihood`
    it is the log-likelihood of the right answers in nats per answer.
    """

    claim: str = Field(description="The sentence.")
    metric: Quantity = Field(
        "score",
        description="`log-likelihood`: of the right answers, where scores are coarse (`evaluate.right_answers`). "
        "`loss`: the training loss, if all arms train on the same data.",
    )
    better: Choice | None = None
    worse: Choice | None = None
    than: Contrast | None = Field(None, description="Another difference, which this one exceeds.")
    alike: list[Choice] | None = Field(None, description="Choices that don't differ.")
    within: float | None = Field(None, gt=0, description="With `alike`: the largest difference that counts as none.")
    follows: Literal["loss"] | None = Field(
        None, description="What the quantity follows over all arms: the training loss."
    )
    minimum: float = Field(0.0, ge=0, description="The claimed least difference (points, nats) or correlation.")
    tasks: list[str] | None = Field(None, description="Default: all tasks of the runs.")
    shots: list[int] | None = Field(None, description="Default: all numbers of shots of the runs.")
    worse_shots: list[int] | None = Field(None, description="Numbers of shots of `worse`; default: `shots`.")
    unit: Unit = Field("run", description="What each seed must have of its own. A test over another unit is refused.")
    kind: Kind = Field("direct", description="`built-in` claims do not count.")
    registered: Literal["before", "after"] | None = Field(
        None, description="Whether the claim was written before or after results that bear on it were known."
    )
    written: Written | None = Field(None, description="Date and commit; `registered` needs it.")

    @model_validator(mode="after")
    def _one_form(self) -> Claim:
        compared = self.better is not None and self.worse is not None
        forms = (compared, self.alike is not None, self.follows is not None)
        if sum(forms) != 1 or (self.better is None) != (self.worse is None):
            raise ValueError(
                "a claim has either `better` and `worse`, or `alike` and `within`, or `follows`: give one of the three"
            )
        if self.follows is not None and (self.metric == "loss" or self.minimum >= 1):
            raise ValueError("`follows` needs scores as `metric`, and a `minimum` below 1, which is a correlation")
        if self.alike is not None and (len(self.alike) < 2 or self.within is None):
            raise ValueError("`alike` needs at least two choices, and `within`, the largest difference between them")
        if self.than is not None and not compared:
            raise ValueError("`than` needs `better` and `worse`: give them, or leave `than` out")
        if self.worse_shots is not None and (self.shots is None or self.worse is None):
            raise ValueError("`worse_shots` needs `better`, `worse` and `shots`: give all of them, or leave it out")
        if self.better is not None and self.better == self.worse and self.worse_shots is None:
            raise ValueError("`better` and `worse` are the same arms: give `worse_shots`, or other arms")
        if self.metric == "loss" and (self.tasks is not None or self.shots is not None):
            raise ValueError(LOSS_STANDS_ALONE)
        if (self.registered is None) != (self.written is None):
            raise ValueError("`registered` (before or after) and `written` (date and commit) go together: give both")
        return self

    @property
    def measure(self) -> Measure:
        """What the effect is measured in."""
        if self.follows is not None:
            return "correlation"
        return "points" if self.metric == "score" else "nats"

    @property
    def threshold(self) -> str:
        """The least effect in words, such as `by more than 1 points`."""
        if self.follows is not None:
            return f"a rank correlation above {self.minimum:g}"
        return f"by more than {self.minimum:g} {self.measure}"

    def choices(self) -> list[Choice]:
        """Return every choice of arms in the claim; none with `follows`, which takes every arm for itself."""
        pairs = [self.better, self.worse, *((self.than.better, self.than.worse) if self.than else ())]
        return self.alike or [choice for choice in pairs if choice is not None]

    def question(self) -> dict[str, Any]:
        """Return what is measured: the keys that the effect depends on, and neither its threshold nor its history."""
        threshold = {"claim", "within", "minimum", "unit", "kind", "registered", "written"}
        return self.model_dump(mode="json", exclude=threshold, exclude_none=True)
