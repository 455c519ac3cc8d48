"""Tests which differences between two models are real: paired tests on the same items.

A real difference is one between these two models. It says nothing of their recipes, since two runs of one recipe are
two models as well (see `mm1.evaluate.compare_recipes`). The difference on each task has a bootstrap interval over items
and a p value from a permutation test, which randomly exchanges the two models' answers to an item. Holm's correction
over all rows keeps the probability of calling any row real by mistake at 5 %.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text as Styled

from mm1.confidence import SIGNIFICANCE, TAILS, holm
from mm1.errors import UserError
from mm1.evaluate.bootstrap import NUMBERS_AT_ONCE
from mm1.evaluate.item_groups import lowest_of_groups
from mm1.evaluate.metrics import METRICS, Metric
from mm1.evaluate.scoring import RIGHT_ANSWER

PAIRED_RESAMPLES = 2000
"""Resamples and permutations. The smallest p value is 1/2001; Holm's correction needs that for up to 100 rows."""
SAYS_MODELS = (
    "The test is over items. It says whether these two models differ, and not whether their recipes do: two runs of "
    "one recipe with other seeds differ as well. To compare recipes, name several runs a side, separated by commas."
)
SAYS_RECIPES = "The test is over runs ({} and {}) and items, and says whether the recipes differ."
_MODEL_KEYS = {"model", "model_hash", "adapter", "tokens", "dtype", "quantization"}


@dataclass(frozen=True)
class Comparison:
    """One task at one number of shots.

    Attributes:
        task: The task's name.
        shots: The number of shots.
        metric: The metric's name.
        items: The number of items that both runs answered.
        first: The first run's score.
        second: The second run's score.
        interval: 95 % bootstrap interval of second minus first.
        p_value: The permutation test's p value, before correction.
        real: Whether the difference is significant at 5 % after Holm's correction.
        runs: The number of runs on each side.
    """

    task: str
    shots: int
    metric: str
    items: int
    first: float
    second: float
    interval: tuple[float, float]
    p_value: float
    real: bool = False
    runs: tuple[int, int] = (1, 1)


def compare_runs(first: Path, second: Path, *, seed: int = 0, resamples: int = PAIRED_RESAMPLES) -> list[Comparison]:
    """Compare the results that two runs have in common.

    Args:
        first: A run's directory, or a directory of result files.
        second: Another one.
        seed: The seed of resamples and permutations.
        resamples: The number of resamples and of permutations.

    Raises:
        UserError: If they have no result in common, or were not scored by the same protocol on the same items.
    """
    ours, theirs = read_results(first), read_results(second)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise UserError(
            f"{first} and {second} have no result for the same task and number of shots: score both with the same "
            "--tasks and --shots"
        )
    rows = [_compare(ours[key], theirs[key], seed, resamples) for key in common]
    corrected = holm([row.p_value for row in rows])
    return [replace(row, real=p <= SIGNIFICANCE) for row, p in zip(rows, corrected, strict=True)]


def comparison_table(comparisons: Sequence[Comparison], first: str, second: str) -> Table:
    """Return a table of the comparisons, scores in percent, with what the test says."""
    recipes = any(row.runs > (1, 1) for row in comparisons)
    table = Table(
        title="Differences between recipes" if recipes else "Differences between these two models",
        title_justify="left",
        caption=SAYS_RECIPES.format(*comparisons[0].runs) if recipes else SAYS_MODELS,
        caption_justify="left",
    )
    table.add_column("task", no_wrap=True)
    for column in ("shots", "items", first, second, "difference (95 %)", "p"):
        table.add_column(column, justify="right")
    table.add_column("recipes differ?" if recipes else "models differ?")
    for row in comparisons:
        low, high = (100 * bound for bound in row.interval)
        table.add_row(
            Styled.assemble(f"{row.task}\n", (METRICS[row.metric].title, "dim")),
            str(row.shots),
            f"{row.items:,}",
            f"{100 * row.first:.1f}",
            f"{100 * row.second:.1f}",
            Styled.assemble(f"{100 * (row.second - row.first):+.1f}\n", (f"{low:+.1f} to {high:+.1f}", "dim")),
            f"{row.p_value:.4f}",
            Styled("yes", "green") if row.real else Styled("no", "dim"),
        )
    return table


def read_results(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Read the result files of a run, or of a directory, by task and number of shots.

    Raises:
        UserError: If there is no result, or a file is not a result.
    """
    folder = path / "scores" if (path / "scores").is_dir() else path
    results = {}
    for file in sorted(folder.glob("*-shot.json")):
        try:
            result = json.loads(file.read_text())
            results[result["task"], result["shots"]] = result
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file}: not a result of `mm1 evaluate`: remove it, or score again") from None
    if not results:
        below = sorted({str(file.parent) for file in folder.glob("*/*-shot.json")})
        advice = f"name one of {', '.join(below)}" if below else "score the run with `mm1 evaluate`"
        raise UserError(f"{folder}: there are no results: {advice}")
    return results


def _compare(ours: dict[str, Any], theirs: dict[str, Any], seed: int, resamples: int) -> Comparison:
    name = f"{ours['task']} at {ours['shots']} shots"
    if (differs := differing_protocol(ours["protocol"], theirs["protocol"])) is not None:
        raise UserError(f"{name}: the runs were scored differently ({differs}): score both with the same settings")
    metric = METRICS[ours["metric"]]
    first, second = result_statistics(ours), result_statistics(theirs)
    observed = float(_score(metric, second) - _score(metric, first))
    generator = np.random.default_rng(seed)
    count = first.shape[-2]
    differences: list[float] = []
    permuted: list[float] = []
    chunk = max(1, NUMBERS_AT_ONCE // first.size)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        rows = generator.integers(0, count, size=(size, count))
        differences.extend(_many(metric, second[:, rows], size) - _many(metric, first[:, rows], size))
        swap = generator.random((size, count))[None, :, :, None] < 0.5
        one, other = np.where(swap, second[:, None], first[:, None]), np.where(swap, first[:, None], second[:, None])
        permuted.extend(_many(metric, other, size) - _many(metric, one, size))
    extreme = int((np.abs(permuted) >= abs(observed) - 1e-12).sum())
    low, high = np.quantile(differences, TAILS)
    return Comparison(
        task=ours["task"],
        shots=ours["shots"],
        metric=ours["metric"],
        items=count,
        first=float(_score(metric, first)),
        second=float(_score(metric, second)),
        interval=(float(low), float(high)),
        p_value=(1 + extreme) / (1 + resamples),
    )


def differing_protocol(
    first: dict[str, Any], second: dict[str, Any], ignored: frozenset[str] = frozenset()
) -> str | None:
    """Return the first key in which two protocols differ, with both values; None if they are equal.

    Args:
        first: A result's protocol.
        second: Another one.
        ignored: Keys that may differ, besides those that describe the model.
    """
    for key in sorted((first.keys() | second.keys()) - _MODEL_KEYS - ignored):
        if first.get(key) != second.get(key):
            return f"{key}: {first.get(key)!r} and {second.get(key)!r}"
    return None


def result_statistics(result: dict[str, Any]) -> np.ndarray:
    """Return the metric's statistics (draws, items, s), computed from a result's predictions."""
    metric = METRICS[result["metric"]]
    predictions = result["predictions"]
    references = [prediction["answers"] for prediction in predictions]
    options = [prediction.get("options", []) for prediction in predictions]
    draws = [[p, *p.get("other_draws", [])] for p in predictions]
    stacked = []
    for answers in zip(*draws, strict=True):
        rows = metric.measure([answer["prediction"] or "" for answer in answers], references, options)
        rows[["error" in answer for answer in answers]] = 0.0
        if result["protocol"].get("together") is not None:
            rows = lowest_of_groups(rows, [prediction["together"] for prediction in predictions])
        stacked.append(rows)
    return np.stack(stacked)


def answer_likelihoods(result: dict[str, Any]) -> np.ndarray | None:
    """Return the log-likelihoods of the right answers in nats, (draws, items, 1); None if they weren't asked for.

    Items whose picture can't be decoded are left out.
    """
    draws = [[p, *p.get("other_draws", [])] for p in result["predictions"]]
    if not draws or RIGHT_ANSWER not in draws[0][0]:
        return None
    values = np.array([[answer[RIGHT_ANSWER] for answer in each] for each in draws], dtype=np.float64)
    return values[~np.isnan(values).any(axis=1)].T[..., None]


def _score(metric: Metric, statistics: np.ndarray) -> np.ndarray:
    return metric.score(statistics).mean(axis=0)


def _many(metric: Metric, statistics: np.ndarray, size: int) -> np.ndarray:
    """Return the mean score over draws for each of `size` resamples: (draws, size, items, s) to (size,)."""
    return metric.score(statistics).reshape(-1, size).mean(axis=0)
