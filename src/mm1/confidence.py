"""How sure a number must be: one level for every interval, band and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
"""Of every interval and band: the share of them that hold the true value."""

SIGNIFICANCE = 1 - CONFIDENCE
"""Of every test: the chance of calling a difference real that is none."""

TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
"""The quantiles between which a two-sided interval lies."""

_PANELS, _NODES = 36, 8
_SMALLEST = 1e-16
"""The share of each tail that is left out."""


@dataclass(frozen=True)
class Error:
    """One source of chance of an estimate: its standard error, and the degrees of freedom with which it is known."""

    size: float
    freedom: float


def chance_above(distance: float, errors: Sequence[Error]) -> float:
    """Return the chance that the errors together reach `distance` or more.

    Each is Student's, as the Behrens-Fisher solution has it, so an error that few seeds estimated keeps its heavy
    tail. That solution is conservative (Robinson 1976), also far out, where corrections for many tests look.
    Satterthwaite's single Student distribution isn't: with three seeds that happen to agree it takes the items' degrees
    of freedom and finds p = 0.0025 five times too often (simulated).

    Args:
        distance: How far the estimate lies from the value in question.
        errors: The sources of chance, which are independent.
    """
    import numpy as np
    from scipy import special

    there = sorted((error for error in errors if error.size > 0), key=lambda error: -error.size)
    if not there:
        return 0.5 if distance == 0 else float(distance < 0)
    largest, *others = there
    positions, share = np.zeros(1), np.ones(1)
    for error in others:
        values, weights = _nodes(error.freedom)
        positions = np.add.outer(positions, error.size * values).ravel()
        share = np.multiply.outer(share, weights).ravel()
    return float(share @ special.stdtr(largest.freedom, (positions - distance) / largest.size))


def reach(errors: Sequence[Error]) -> float:
    """Return half the width of the interval at `CONFIDENCE` around an estimate with these errors."""
    from scipy import optimize, special

    if not any(error.size for error in errors):
        return 0.0
    highest = 2 * sum(float(special.stdtrit(error.freedom, TAILS[1])) * error.size for error in errors)
    return float(optimize.brentq(lambda distance: chance_above(distance, errors) - TAILS[0], 0.0, highest))


@cache
def _nodes(freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Return values of Student's distribution and their weights: Gauss-Legendre over logarithms of the tails' shares.

    Shares themselves as places would end at one in a thousand, and what lies beyond decides small p values.
    """
    import numpy as np
    from scipy import special

    places, weights = np.polynomial.legendre.leggauss(_NODES)
    edges = np.linspace(np.log(_SMALLEST), np.log(0.5), _PANELS + 1)
    half = np.diff(edges)[:, None] / 2
    logs = (edges[:-1, None] + half * (places + 1)).ravel()
    below, share = special.stdtrit(freedom, np.exp(logs)), (half * weights).ravel() * np.exp(logs)
    return np.concatenate([below, -below]), np.concatenate([share, share])


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values corrected for their number by Holm's step-down rule (Holm 1979).

    Calling those at most `SIGNIFICANCE` significant keeps the chance of a single false one at `SIGNIFICANCE`.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, so_far = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        so_far = max(so_far, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = so_far
    return corrected


def p_text(p_value: float) -> str:
    """Return a p value as text with three digits: `0.021`, or `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
