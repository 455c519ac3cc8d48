"""The law and its fit as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mm1.scaling.description_table import short
from mm1.scaling.fit import Fit
from mm1.scaling.law import PAPER_LAW, WEIGHT_DECAY, Law


def fit_table(fit: Fit) -> Table:
    """Return a table of a fit with one row per size."""
    caption = (
        f"ln(eta) = {fit.law.slope:.4f} ln(N) {fit.law.intercept:+.4f}; slope ± {fit.slope_error:.4f} (95 %); the "
        f"optima scatter by {fit.scatter:.1%} around the law. Paper: {PAPER_LAW.slope} ln(N) {PAPER_LAW.intercept:+}."
    )
    table = Table(title=f"learning-rate law from {len(fit.optima)} sizes", caption="\n".join([caption, *fit.refused]))
    swept = [] if fit.measure is None else ["standard error", fit.measure]
    for title in ("N", "best rate", *swept, "law", "law without it", "off by", ""):
        table.add_column(title, justify="right")
    for optimum, left in zip(fit.optima, fit.left_out, strict=True):
        error = "" if optimum.error is None else f"{optimum.error:.1%}"
        table.add_row(
            short(round(optimum.size)),
            f"{optimum.learning_rate:.3g}",
            *([] if optimum.value is None else [error, f"{optimum.value:.4g}"]),
            f"{fit.law(optimum.size):.3g}",
            f"{left.predicted:.3g}",
            f"{left.ratio - 1:+.1%}",
            "outlier" if left.outlier else "",
        )
    return table


def prediction_table(sizes: Sequence[tuple[str, float]], fit: Fit | None) -> Table:
    """Return learning rate and weight decay by size.

    Args:
        sizes: Names and N.
        fit: The fit whose law is used; None: the paper's law.
    """
    law: Law = PAPER_LAW if fit is None else fit.law
    caption = (
        "N: parameters of the decoder without embeddings; for a sparse decoder, those of its dense backbone. "
        "train.weight_decay is a multiple of the learning rate and stays 0.1."
    )
    table = Table(title=f"{'the paper' if fit is None else 'the fit'}'s law", caption=caption)
    for title in ("", "N", "peak learning rate", "weight decay", *([] if fit is None else ["95 % band"])):
        table.add_column(title, justify="right")
    for name, size in sizes:
        rate = law(size)
        band = [] if fit is None else ["{:.3g} to {:.3g}".format(*fit.band(size))]
        table.add_row(name, short(round(size)), f"{rate:.3g}", f"{WEIGHT_DECAY * rate:.3g}", *band)
    return table
