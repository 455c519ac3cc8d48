"""A study's figure: mean scores with their intervals over an axis, as self-contained SVG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mm1.study.claim import Choice
from mm1.study.claims import estimate
from mm1.study.results import Results, Scores
from mm1.study.schema import FigureRecipe, Study, chosen

SHOTS = "shots"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mm1",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
}
# Okabe and Ito's colours, which the colour-blind can distinguish (Nature Methods 8, 441, 2011).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = "os^DvP"
_WIDTH = 66
"""Letters that fit side by side below the axis."""


def study_figure(study: Study, results: Results) -> str:
    """Draw a study's figure.

    Args:
        study: The study, whose `figure` says what to draw; without it, the first axis with a line for each number of
            shots.
        results: The results; an arm is drawn if all its runs are done.

    Returns:
        An SVG document; the same results give the same bytes.
    """
    recipe = study.figure or FigureRecipe(x=next(iter(study.values)), lines=SHOTS)
    ticks, lines = _values(study, results, recipe, recipe.x), _values(study, results, recipe, recipe.lines)
    ordered = _is_ordered(ticks)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.2, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, line in enumerate(lines):
            offset = 0.06 * (number - (len(lines) - 1) / 2)
            choice = {recipe.lines: line} if recipe.lines else {}
            points = [_point(results, recipe, {recipe.x: x} | choice) for x in ticks]
            positions = [position + offset for position, point in enumerate(points) if point is not None]
            drawn = [point for point in points if point is not None]
            axes.errorbar(
                positions,
                [mean for mean, _ in drawn],
                yerr=[half for _, half in drawn],
                color=_COLOURS[number % len(_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                capsize=3,
                linestyle="-" if ordered else "none",
                linewidth=1.6,
                label=f"{line} shots" if recipe.lines == SHOTS else line,
            )
        axes.set_xticks(range(len(ticks)), [textwrap.fill(tick, _WIDTH // len(ticks)) for tick in ticks])
        axes.set_xlim(-0.4, len(ticks) - 0.6)
        axes.set_xlabel(recipe.x)
        axes.set_ylabel(_label(recipe))
        if recipe.lines is not None:
            axes.legend(frameon=False, title=None if recipe.lines == SHOTS else recipe.lines)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _is_ordered(values: Sequence[str]) -> bool:
    """Return whether an axis's values are numbers, so that a line between two of them means something."""
    try:
        return len([float(value) for value in values]) > 1
    except ValueError:
        return False


def _label(recipe: FigureRecipe) -> str:
    if recipe.metric == "loss":
        return "training loss, nats a token"
    return "score, " + ("mean of tasks" if recipe.tasks is None else ", ".join(recipe.tasks))


def _values(study: Study, results: Results, recipe: FigureRecipe, axis: str | None) -> list[str]:
    if axis is None:
        return [""]
    if axis == SHOTS:
        return [str(count) for count in sorted({s.shots for s in results.select(recipe.tasks, recipe.shots)})]
    return list(study.values[axis])


def _point(results: Results, recipe: FigureRecipe, choice: dict[str, str]) -> tuple[float, float] | None:
    """Return the mean of the chosen arms and half its interval; None if one of their runs is missing."""
    shots = [int(choice.pop(SHOTS))] if SHOTS in choice else recipe.shots
    return mean_of(results, choice, results.select(recipe.tasks, shots, recipe.metric))


def mean_of(results: Results, choice: Choice, scores: Sequence[Scores]) -> tuple[float, float] | None:
    """Return the mean score of the chosen arms and half its 95 % interval; None if one of their runs is missing.

    Half the interval is NaN if there is only one seed.
    """
    weights = np.array([chosen(arm, choice) for arm in results.arms], dtype=np.float64)
    if np.isnan(results.seconds[weights > 0]).any():
        return None
    effect = estimate("mean", [(weights / weights.sum(), scores)])
    return effect.mean, (effect.interval[1] - effect.interval[0]) / 2
