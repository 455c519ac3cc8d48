"""The law as a figure: sweeps with their optima, and the optima over the sizes."""

from __future__ import annotations

import io
import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mm1.errors import UserError
from mm1.files import write_text
from mm1.scaling.fit import Fit
from mm1.scaling.law import PAPER_LAW

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "mm1", "axes.spines.top": False, "axes.spines.right": False}


def write_plot(fit: Fit, path: Path) -> None:
    """Write the figure of a fit as SVG.

    Raises:
        UserError: If the file can't be written.
    """
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # matplotlib types keys as literals
        figure = Figure(figsize=(10 if fit.measure else 5.5, 4), layout="constrained")
        axes = figure.subplots(1, 2 if fit.measure else 1, squeeze=False)[0]
        if fit.measure:
            _draw_sweeps(axes[0], fit)
        _draw_law(axes[-1], fit)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    try:
        write_text(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{path}: the figure can't be written ({error}): choose another file") from None


def _draw_sweeps(axes: Axes, fit: Fit) -> None:
    """Draw the points of every size, the fitted parabola and its vertex."""
    optima = {optimum.size: optimum for optimum in fit.optima}
    for number, size in enumerate(sorted({point.size for point in fit.points})):
        own = [point for point in fit.points if point.size == size]
        colour = f"C{number % 10}"
        axes.plot([p.learning_rate for p in own], [float(p.value or 0) for p in own], "o", color=colour, alpha=0.6)
        axes.plot([], [], "-o", color=colour, label=f"{size:.3g}" + ("" if size in optima else ", no optimum"))
        if size in optima:
            optimum = optima[size]
            rates = np.geomspace(optimum.rates[0], optimum.rates[-1])
            axes.plot(rates, np.polyval(optimum.parabola, np.log(rates)), color=colour)
            axes.plot(optimum.learning_rate, float(optimum.value or 0), "*", color=colour, markersize=13)
    axes.set(xscale="log", xlabel="peak learning rate", ylabel=fit.measure, title="sweeps, stars: optima")
    axes.legend(title="N", frameon=False)


def _draw_law(axes: Axes, fit: Fit) -> None:
    """Draw the optima with their errors, the law with its band, and the paper's law."""
    sizes = np.array([optimum.size for optimum in fit.optima])
    line = np.geomspace(sizes.min() / 2, sizes.max() * 2)
    low, high = np.array([fit.band(size) for size in line]).T
    axes.fill_between(line, low, high, alpha=0.15, color="C0", linewidth=0, label="95 % band")
    axes.plot(line, [fit.law(size) for size in line], color="C0", label=f"fit: {_formula(fit)}")
    axes.plot(line, [PAPER_LAW(size) for size in line], "--", color="0.5", label="paper")
    for optimum, left in zip(fit.optima, fit.left_out, strict=True):
        rate, error = optimum.learning_rate, optimum.error or 0.0
        bars = [[rate - rate * math.exp(-error)], [rate * math.exp(error) - rate]]
        axes.errorbar(
            optimum.size, rate, yerr=bars, fmt="x" if left.outlier else "o", color="C3" if left.outlier else "C0"
        )
    if any(left.outlier for left in fit.left_out):
        axes.plot([], [], "x", color="C3", label="outlier")
    axes.set(xscale="log", yscale="log", xlabel="N, parameters without embeddings", ylabel="best peak learning rate")
    axes.legend(frameon=False)


def _formula(fit: Fit) -> str:
    return f"exp({fit.law.slope:.4f} ln N {'+' if fit.law.intercept >= 0 else '-'} {abs(fit.law.intercept):.4f})"
