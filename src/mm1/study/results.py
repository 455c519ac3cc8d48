"""The scores of a study's runs as arrays: arms x seeds, also for every resample of the items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mm1.errors import UserError
from mm1.evaluate.bootstrap import ITEM_RESAMPLES, resampled_scores
from mm1.evaluate.compare import answer_likelihoods, differing_protocol, read_results, result_statistics
from mm1.evaluate.metrics import METRICS, Metric
from mm1.evaluate.tasks.task import Floor, load_task
from mm1.study.claim import Measure, Quantity, Unit
from mm1.study.plan import StudyRun
from mm1.study.schema import Arm

SWAPPED: Floor = "swapped pictures"

VARIED = frozenset({"detailed_shots"})
"""Keys of a result's protocol that may differ between a study's arms."""

MEAN = Metric("log_likelihood", "log-likelihood", "the model's own, in nats per answer", lambda rows: rows)
"""The log-likelihood of the right answers as a metric: the mean over items."""

LAST = 0.1
"""A run's loss is the mean over this last share of its steps."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of one task at one number of shots in percentage points, or the training loss in nats per token.

    Attributes:
        task: The task's name.
        shots: The number of shots.
        items: The number of scored items.
        points: (arms, seeds) scores; NaN where a run is missing.
        resampled: (arms, seeds, resamples) scores of items drawn with replacement, the same items for all runs.
        blind: (arms, seeds) scores with the picture of another item; NaN where a run has none.
        measure: What all scores are measured in.
    """

    task: str
    shots: int
    items: int
    points: Floats
    resampled: Floats
    blind: Floats
    measure: Measure = "points"


@dataclass(frozen=True)
class Results:
    """The results of a study's runs.

    Attributes:
        arms: The arms in the study's order.
        seeds: The seeds in the study's order.
        scores: The scores by task and number of shots.
        seconds: (arms, seeds) how long each run took; NaN where a run is missing.
        losses: (arms, seeds) each run's final training loss in nats per token; NaN where a run is missing.
        likelihoods: The log-likelihoods of the right answers in nats per answer, by task and number of shots; empty
            unless the runs were scored with `evaluate.right_answers`.
        units: What each seed has of its own.
        looks: How often the results were looked at.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    scores: tuple[Scores, ...]
    seconds: Floats
    losses: Floats
    likelihoods: tuple[Scores, ...] = ()
    units: tuple[Unit, ...] = ("run",)
    looks: int = 1

    @property
    def loss(self) -> Scores:
        """The training loss in the form of a task's scores; resampling doesn't change it."""
        resampled = np.broadcast_to(self.losses[..., None], (*self.losses.shape, ITEM_RESAMPLES))
        blind = np.full(self.losses.shape, np.nan)
        return Scores("training loss", 0, 1, self.losses, resampled, blind, measure="nats")

    @property
    def missing(self) -> int:
        """The number of missing runs."""
        return int(np.isnan(self.seconds).sum())

    def select(
        self, tasks: Sequence[str] | None, shots: Sequence[int] | None, metric: Quantity = "score"
    ) -> tuple[Scores, ...]:
        """Return the scores of the given tasks and numbers of shots (None: all), or the training loss.

        Raises:
            UserError: If the runs have no such scores.
        """
        if metric == "loss":
            return (self.loss,)
        there = self.scores if metric == "score" else self.likelihoods
        if not there:
            raise UserError(
                "the study's runs have no log-likelihoods: set evaluate.right_answers to true under `set`, and "
                "score again"
            )
        for requested, available, what in (
            (tasks, {s.task for s in there}, "task"),
            (shots, {s.shots for s in there}, "number of shots"),
        ):
            for value in requested or ():
                if value not in available:
                    known = ", ".join(map(str, sorted(available)))
                    raise UserError(f"the study's runs have no scores for {what} {value}: choose from {known}")
        return tuple(s for s in there if (tasks is None or s.task in tasks) and (shots is None or s.shots in shots))


def read_study(runs: Sequence[StudyRun]) -> Results:
    """Read the scores of the study's runs that are done.

    Raises:
        UserError: If no run is done, or two were scored by different protocols.
    """
    arms, seeds = tuple(dict.fromkeys(r.arm for r in runs)), tuple(dict.fromkeys(r.seed for r in runs))
    shape = len(arms), len(seeds)
    seconds, losses = np.full(shape, np.nan), np.full(shape, np.nan)
    protocols: dict[tuple[str, int], tuple[str, dict[str, object]]] = {}
    cells: dict[tuple[str, tuple[str, int]], _Cells] = {}
    for run in runs:
        if run.seconds is None:
            continue
        cell = arms.index(run.arm), seeds.index(run.seed)
        seconds[cell], losses[cell] = run.seconds, last_loss(run.directory)
        tasks = {load_task(task).name for task in run.recipe.evaluate.tasks}
        for key, result in read_results(run.scores).items():
            if key[0] not in tasks or key[1] not in run.recipe.evaluate.shots:
                continue
            other, protocol = protocols.setdefault(key, (run.name, result["protocol"]))
            if (differs := differing_protocol(protocol, result["protocol"], ignored=VARIED)) is not None:
                both = f"{other} and {run.name}"
                raise UserError(f"{key[0]} at {key[1]} shots: {both} were scored differently: {differs}")
            swapped = result["floors"].get(SWAPPED)
            blind = np.nan if swapped is None else 100 * swapped["score"]
            scored = cells.setdefault(("score", key), _Cells(shape, "points", 100.0))
            scored.put(cell, METRICS[result["metric"]], result_statistics(result), blind)
            if (likelihoods := answer_likelihoods(result)) is not None:
                cells.setdefault(("log-likelihood", key), _Cells(shape, "nats", 1.0)).put(cell, MEAN, likelihoods)
    if not cells:
        raise UserError("none of the study's runs is done: make them with `mm1 study run`")
    scores, nats = (
        tuple(filled.scores(*key) for (what, key), filled in cells.items() if what == quantity)
        for quantity in ("score", "log-likelihood")
    )
    return Results(arms, seeds, scores, seconds, losses, nats)


class _Cells:
    """Collects the scores of one task at one number of shots, run by run."""

    def __init__(self, shape: tuple[int, int], measure: Measure, factor: float) -> None:
        self.measure, self.factor, self.items = measure, factor, 0
        self.points, self.blind = np.full(shape, np.nan), np.full(shape, np.nan)
        self.resampled = np.full((*shape, ITEM_RESAMPLES), np.nan)

    def put(self, cell: tuple[int, int], metric: Metric, statistics: Floats, blind: float = np.nan) -> None:
        """Add a run's statistics (draws, items, s)."""
        self.items = statistics.shape[1]
        self.points[cell] = self.factor * metric.score(statistics).mean()
        self.resampled[cell] = self.factor * resampled_scores(metric, statistics, 0, ITEM_RESAMPLES)
        self.blind[cell] = blind

    def scores(self, task: str, shots: int) -> Scores:
        return Scores(task, shots, self.items, self.points, self.resampled, self.blind, self.measure)


def last_loss(run: Path) -> float:
    """Return the mean training loss over the last tenth of a run's steps, from its log."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = {line["step"]: line["loss"] for line in lines if "loss" in line}
    return float(np.mean([value for step, value in steps.items() if step > (1 - LAST) * max(steps)]))
