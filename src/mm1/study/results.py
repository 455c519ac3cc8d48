"""The scores of a study's runs as arrays: arms x seeds, and again for every resample of the items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mm1.errors import UserError
from mm1.evaluate.bootstrap import ITEM_RESAMPLES, resampled_scores
from mm1.evaluate.compare import differing_protocol, read_results, result_statistics
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.tasks.task import Floor, load_task
from mm1.study.plan import StudyRun
from mm1.study.schema import Arm, Quantity

SWAPPED: Floor = "swapped pictures"

VARIED = frozenset({"detailed_shots"})
"""What of the scoring a study's arms may differ in."""

LAST = 0.1
"""The loss of a run is the mean over this last share of its steps."""

Unit = Literal["points", "nats"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of one task at one number of shots in percentage points, or the training loss in nats a token.

    Attributes:
        task: Its name.
        shots: How many.
        items: How many items were scored.
        points: (arms, seeds); NaN where a run is missing.
        resampled: (arms, seeds, resamples): the same for items drawn with replacement, the same ones for all runs.
        blind: As `points`, with another item's picture in place of the right one; NaN where that was not scored.
        unit: Of all of them.
    """

    task: str
    shots: int
    items: int
    points: Floats
    resampled: Floats
    blind: Floats
    unit: Unit = "points"


@dataclass(frozen=True)
class Results:
    """What a study's runs came to.

    Attributes:
        arms: In the study's order.
        seeds: Likewise.
        scores: By task and shots.
        seconds: (arms, seeds): what each run took; NaN where one is missing.
        losses: (arms, seeds): each run's training loss at the end, in nats a token; NaN where one is missing.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    scores: tuple[Scores, ...]
    seconds: Floats
    losses: Floats

    @property
    def loss(self) -> Scores:
        """The training loss as if it were a task's score, on which no other items could have been drawn."""
        resampled = np.broadcast_to(self.losses[..., None], (*self.losses.shape, ITEM_RESAMPLES))
        blind = np.full(self.losses.shape, np.nan)
        return Scores("training loss", 0, 1, self.losses, resampled, blind, unit="nats")

    @property
    def missing(self) -> int:
        """How many runs are not there."""
        return int(np.isnan(self.seconds).sum())

    def select(
        self, tasks: Sequence[str] | None, shots: Sequence[int] | None, metric: Quantity = "score"
    ) -> tuple[Scores, ...]:
        """Return the scores of some tasks at some numbers of shots (None: of all), or the training loss.

        Raises:
            UserError: If the runs were not scored so.
        """
        if metric == "loss":
            return (self.loss,)
        for wanted, there, what in (
            (tasks, {s.task for s in self.scores}, "task"),
            (shots, {s.shots for s in self.scores}, "number of shots"),
        ):
            for value in wanted or ():
                if value not in there:
                    known = ", ".join(map(str, sorted(there)))
                    raise UserError(f"the study's runs were not scored on {what} {value}: they were on {known}")
        return tuple(
            s for s in self.scores if (tasks is None or s.task in tasks) and (shots is None or s.shots in shots)
        )


def read_study(runs: Sequence[StudyRun]) -> Results:
    """Read the scores of a study's runs, those that are there.

    Raises:
        UserError: If none is there, or two were scored by different protocols.
    """
    arms, seeds = tuple(dict.fromkeys(r.arm for r in runs)), tuple(dict.fromkeys(r.seed for r in runs))
    shape = len(arms), len(seeds)
    seconds, losses = np.full(shape, np.nan), np.full(shape, np.nan)
    points: dict[tuple[str, int], Floats] = {}
    resampled: dict[tuple[str, int], Floats] = {}
    blind: dict[tuple[str, int], Floats] = {}
    items: dict[tuple[str, int], int] = {}
    protocols: dict[tuple[str, int], tuple[str, dict[str, object]]] = {}
    for run in runs:
        if run.seconds is None:
            continue
        place = arms.index(run.arm), seeds.index(run.seed)
        seconds[place], losses[place] = run.seconds, last_loss(run.directory)
        tasks = {load_task(task).name for task in run.recipe.evaluate.tasks}
        for key, result in read_results(run.scores).items():
            if key[0] not in tasks or key[1] not in run.recipe.evaluate.shots:
                continue
            other, protocol = protocols.setdefault(key, (run.name, result["protocol"]))
            if (differs := differing_protocol(protocol, result["protocol"], besides=VARIED)) is not None:
                who = f"{other} and {run.name}"
                raise UserError(f"{key[0]} at {key[1]} shots: {who} were scored differently: {differs}")
            metric, statistics = METRICS[result["metric"]], result_statistics(result)
            items[key] = statistics.shape[1]
            points.setdefault(key, np.full(shape, np.nan))[place] = 100 * metric.score(statistics).mean()
            swapped = result["floors"].get(SWAPPED)
            score = np.nan if swapped is None else 100 * swapped["score"]
            blind.setdefault(key, np.full(shape, np.nan))[place] = score
            draws = resampled.setdefault(key, np.full((*shape, ITEM_RESAMPLES), np.nan))
            draws[place] = 100 * resampled_scores(metric, statistics, 0, ITEM_RESAMPLES)
    if not points:
        raise UserError("none of the study's runs is done: make them with `mm1 study run`")
    scores = tuple(Scores(*key, items[key], points[key], resampled[key], blind[key]) for key in points)
    return Results(arms, seeds, scores, seconds, losses)


def last_loss(run: Path) -> float:
    """Return the mean training loss over the last tenth of a run's steps, as its log has them."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = {line["step"]: line["loss"] for line in lines if "loss" in line}
    return float(np.mean([value for step, value in steps.items() if step > (1 - LAST) * max(steps)]))
