"""The report's figures, as SVG inside the page.

Texts stay texts and use the page's font. Colours are the page's CSS variables, so a figure follows the reader's light
or dark setting. The page adds titles and legends; a figure has only its axes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from mm1.report.read_run import Score

# matplotlib doesn't know CSS variables, so these colours stand for them until the SVG is written.
_VARIABLES = {
    "#fe0001": "var(--ink)",
    "#fe0002": "var(--muted)",
    "#fe0003": "var(--line)",
    "#fe0004": "var(--series)",
    "#fe0005": "var(--floor-1)",
    "#fe0006": "var(--floor-2)",
}
_INK, _MUTED, _LINE, _SERIES, *_FLOORS = _VARIABLES

# Dashes that distinguish the floors without colour.
FLOOR_DASHES: tuple[tuple[int, int], ...] = ((6, 3), (2, 3))

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "ytick.major.size": 0,
}
# Inches. The page shows two losses or three scores side by side, and one at a time on a phone, where the 10 pt text
# must stay legible.
_LOSS_SIZE = (4.9, 2.7)
_SCORE_SIZE = (3.9, 2.6)
_MAX_POINTS = 1000  # raw values per curve; more are indistinguishable and only make the page larger


@dataclass(frozen=True)
class Figure:
    """A figure with its title and its legend: (name, index of the dashes) for every floor in it."""

    title: str
    svg: Markup
    legend: tuple[tuple[str, int], ...] = ()


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a centred Gaussian average over about a fiftieth of the curve, including its ends.

    Args:
        values: float64 (n,), all finite.

    Returns:
        float64 (n,).
    """
    sigma = max(1.0, len(values) / 50)
    reach = int(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    # Dividing by the weight inside the curve keeps both ends from going to zero.
    total = np.convolve(values, kernel)[reach : reach + len(values)]
    weight = np.convolve(np.ones_like(values), kernel)[reach : reach + len(values)]
    return total / weight


def curve_figure(
    steps: NDArray[np.float64],
    values: NDArray[np.float64],
    last_step: float,
    label: str,
    *,
    each: bool = False,
) -> Markup:
    """Draw one curve over training: raw values faint, their average on top.

    Args:
        steps: float64 (n,).
        values: float64 (n,), not negative; values that aren't finite are left out.
        last_step: The end of the x axis: the plan's last step, so that an unfinished run shows its progress.
        label: The figure's text for screen readers.
        each: Whether to draw every value as a point, without an average.

    Returns:
        An `<svg>` element.
    """
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(_LOSS_SIZE)
        if len(values):
            shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MAX_POINTS)).astype(int))
            if each or len(values) == 1:
                axes.plot(steps[shown], values[shown], "o-", color=_SERIES, linewidth=2, markersize=5)
            else:
                axes.plot(steps[shown], values[shown], color=_SERIES, alpha=0.28, linewidth=0.9)
                axes.plot(steps[shown], smooth(values)[shown], color=_SERIES, linewidth=2, solid_capstyle="round")
            # One extreme value must not flatten the rest of the curve.
            top = min(values.max(), 1.5 * float(np.percentile(values, 98)))
            axes.set_ylim(0, 1.06 * (top if top > 0 else 1))
        axes.set_xlim(0, max(last_step, 1))
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        return _svg(figure, label)


def score_figure(scores: Sequence[Score], floor_names: Sequence[str], percent: bool) -> Markup:
    """Draw one task's score over the number of shots, with its 95 % intervals and its floors.

    Args:
        scores: At least one score, with increasing shots.
        floor_names: The floors of all tasks, so that a floor looks the same in every figure.
        percent: Whether the axis ends at 100 %; otherwise it ends above the largest value.

    Returns:
        An `<svg>` element with values times 100.
    """
    positions = np.arange(len(scores))
    values = np.array([100 * score.score for score in scores])
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(_SCORE_SIZE)
        highest = values.max()
        for index, name in enumerate(floor_names):
            points = [(x, 100 * f.score) for x, s in enumerate(scores) for f in s.floors if f.name == name]
            if points:
                highest = max(highest, *(y for _, y in points))
                _draw_floor(axes, points, index)
        for x, score in zip(positions, scores, strict=True):
            if score.interval:
                low, high = (100 * bound for bound in score.interval)
                highest = max(highest, high)
                axes.plot([x, x], [low, high], color=_SERIES, linewidth=6, alpha=0.3, solid_capstyle="butt")
        axes.plot(positions, values, "o-", color=_SERIES, linewidth=2, markersize=6, clip_on=False)
        axes.set_xlim(-0.35, len(scores) - 0.65)
        axes.set_ylim(0, 104 if percent else 1.1 * max(highest, 1))
        axes.set_xticks(positions, [f"{score.shots:,}" for score in scores])
        axes.set_xlabel("shots")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        unit = " %" if percent else ""
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
        return _svg(figure, "score")


def _draw_floor(axes: Axes, points: Sequence[tuple[float, float]], index: int) -> None:
    """Draw a dashed line through the points that extends a little past the first and the last."""
    (first, left), (last, right) = points[0], points[-1]
    line = [(first - 0.35, left), *points, (last + 0.35, right)]
    axes.plot(
        *zip(*line, strict=True),
        color=_FLOORS[index % len(_FLOORS)],
        linewidth=1.6,
        dashes=FLOOR_DASHES[index % len(FLOOR_DASHES)],
        dash_capstyle="butt",
    )


def _axes(size: tuple[float, float]) -> tuple[Drawing, Axes]:
    figure = Drawing(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Drawing, label: str) -> Markup:
    """Return the figure as an `<svg>` element, without the parts that only a separate file needs."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    # Several figures share one page, so keep only the ids that are referred to.
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda match: match[0] if match[1] in used else "", svg)
    # The page sets the size.
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    return Markup(svg)  # noqa: S704  matplotlib escapes the texts that it writes
