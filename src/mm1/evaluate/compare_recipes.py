"""Tests which differences between two recipes are real, from several runs of each.

Two single models of one recipe differ by more than the items explain: other initial weights and another order of the
data give another model. So a difference between two models says nothing of their recipes. With several runs a side, the
spread over the runs of each side is the yardstick, and the choice of the items adds to it. Which run of one side goes
with which of the other doesn't matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mm1.confidence import SIGNIFICANCE, Error, chance_above, holm, reach
from mm1.errors import UserError
from mm1.evaluate.bootstrap import ITEM_RESAMPLES, resampled_scores
from mm1.evaluate.compare import Comparison, differing_protocol, read_results, result_statistics
from mm1.evaluate.metrics import METRICS

Side = dict[tuple[str, int], list[dict[str, Any]]]
"""The results of a side's runs by task and number of shots."""


def compare_recipes(first: Sequence[Path], second: Sequence[Path], *, seed: int = 0) -> list[Comparison]:
    """Compare the results that all runs of two recipes have in common.

    Args:
        first: Directories of runs of one recipe, which differ in the seed alone.
        second: Directories of runs of the other.
        seed: The seed of the resamples.

    Raises:
        UserError: If a side has fewer than two runs, or one model twice; if the runs have no result in common, or were
            not scored by the same protocol on the same items.
    """
    for side in (first, second):
        if len(side) < 2:
            raise UserError(
                f"{side[0]}: one run says nothing of the spread over seeds: name at least two runs a side, separated "
                "by commas, or one run on each side, which compares two models"
            )
    ours, theirs = _read(first), _read(second)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise UserError(
            f"{', '.join(map(str, (*first, *second)))} have no result for the same task and number of shots: score all "
            "with the same --tasks and --shots"
        )
    rows = [_compare(ours[key], theirs[key], seed) for key in common]
    corrected = holm([row.p_value for row in rows])
    return [replace(row, real=p <= SIGNIFICANCE) for row, p in zip(rows, corrected, strict=True)]


def _read(runs: Sequence[Path]) -> Side:
    results = [read_results(run) for run in runs]
    keys = set.intersection(*(set(each) for each in results))
    side = {key: [each[key] for each in results] for key in keys}
    for (task, shots), each in side.items():
        hashes = [result["protocol"].get("model_hash") for result in each]
        if (twice := next((n for n, one in enumerate(hashes) if one in hashes[:n]), None)) is not None:
            raise UserError(
                f"{task} at {shots} shots: {runs[hashes.index(hashes[twice])]} and {runs[twice]} are the same model: "
                "name runs with different seeds"
            )
    return side


def _compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], seed: int) -> Comparison:
    reference = ours[0]
    for other in (*ours, *theirs):
        if (differs := differing_protocol(reference["protocol"], other["protocol"])) is not None:
            name = f"{reference['task']} at {reference['shots']} shots"
            raise UserError(f"{name}: the runs were scored differently ({differs}): score all with the same settings")
    metric = METRICS[reference["metric"]]
    scores, resampled = [], []
    for side in (ours, theirs):
        statistics = [result_statistics(result) for result in side]
        scores.append(np.array([metric.score(rows).mean() for rows in statistics]))
        draws = [resampled_scores(metric, rows, seed, ITEM_RESAMPLES) for rows in statistics]
        resampled.append(np.mean(draws, axis=0))
    items = statistics[0].shape[-2]
    errors = [Error(float(each.std(ddof=1)) / len(each) ** 0.5, len(each) - 1) for each in scores]
    errors.append(Error(float((resampled[1] - resampled[0]).std(ddof=1)), max(1, items - 1)))
    first, second = (float(each.mean()) for each in scores)
    difference, half = second - first, reach(errors)
    return Comparison(
        task=reference["task"],
        shots=reference["shots"],
        metric=reference["metric"],
        items=items,
        first=first,
        second=second,
        interval=(difference - half, difference + half),
        p_value=min(1.0, 2 * chance_above(abs(difference), errors)),
        runs=(len(ours), len(theirs)),
    )
