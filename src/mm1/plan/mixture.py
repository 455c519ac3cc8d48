"""The mixture: which source every sequence of the training comes from, exactly by weight at every moment.

    kinds by their weights --> sources of the kind by theirs

The order repeats itself after a period, so that any stretch of it is worked out at once, from the period alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from mm1.document import Kind

_LONGEST_PERIOD = 1_000_000


class Alternation:
    """Choices spread evenly: after any number of them each has had its share, to less than one.

    This is the chairman assignment problem and Tijdeman's rule for it ("The chairman assignment problem",
    Discrete Mathematics 32, 1980): the deviation never exceeds 1 - 1/(2k - 2) for k choices. Weights whose
    common period is longer than a million choices are rounded to one of a million.

    Args:
        weights: Non-negative, with a positive sum.
        count: How many choices are going to be made, at most.
    """

    def __init__(self, weights: Sequence[float], count: int) -> None:
        fractions = [Fraction(weight).limit_denominator(10_000) for weight in weights]
        shares = [fraction / sum(fractions) for fraction in fractions]
        period = math.lcm(*(share.denominator for share in shares))
        if min(period, count) > _LONGEST_PERIOD:
            period = _LONGEST_PERIOD
            shares = [Fraction(n, period) for n in _rounded(shares, period)]
        self._once = _alternate([float(share) for share in shares], max(1, min(period, count)))
        self._per_period = np.bincount(self._once, minlength=len(shares))
        self._rank_once = np.empty(len(self._once), dtype=np.int64)
        for choice, times in enumerate(self._per_period):
            self._rank_once[self._once == choice] = np.arange(times)

    def __call__(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is chosen at some places, and how often the same was chosen before.

        Args:
            places: (n,) int64, counted from 0.

        Returns:
            (n,) int64 indices into the weights; (n,) int64.
        """
        periods, inside = np.divmod(places, len(self._once))
        chosen = self._once[inside]
        return chosen, periods * self._per_period[chosen] + self._rank_once[inside]


class Mixture:
    """The source of every sequence.

    Args:
        kind_weights: Shares of the kinds.
        sources: The kind of every source, and its weight among those of its kind.
        count: How many sequences there are.
    """

    def __init__(self, kind_weights: Mapping[Kind, float], sources: Sequence[tuple[Kind, float]], count: int) -> None:
        self._kinds = Alternation(list(kind_weights.values()), count)
        self._members = [
            np.array([n for n, (of, _) in enumerate(sources) if of == kind], dtype=np.int64) for kind in kind_weights
        ]
        self._inside = [Alternation([sources[n][1] for n in members], count) for members in self._members]

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Return the sources of the sequences from `start` to before `stop`: (stop - start,) int64."""
        kinds, ranks = self._kinds(np.arange(start, stop))
        sources = np.empty(stop - start, dtype=np.int64)
        for kind, (members, inside) in enumerate(zip(self._members, self._inside, strict=True)):
            mine = kinds == kind
            sources[mine] = members[inside(ranks[mine])[0]]
        return sources


def _rounded(shares: Sequence[Fraction], period: int) -> list[int]:
    """Return whole numbers in the proportion of `shares` that add up to `period` (largest remainders)."""
    wanted = [share * period for share in shares]
    numbers = [math.floor(w) for w in wanted]
    by_remainder = sorted(range(len(shares)), key=lambda n: numbers[n] - wanted[n])
    for n in by_remainder[: period - sum(numbers)]:
        numbers[n] += 1
    return numbers


def _alternate(shares: list[float], count: int) -> np.ndarray:
    chosen = np.empty(count, dtype=np.int64)
    some = [number for number, share in enumerate(shares) if share > 0]
    if len(some) == 1:
        chosen.fill(some[0])
        return chosen
    slack = 1 / (2 * len(some) - 2)
    had = [0] * len(shares)
    for step in range(count):
        due = [
            ((1 - slack - ((step + 1) * shares[number] - had[number])) / shares[number], number)
            for number in some
            if (step + 1) * shares[number] - had[number] >= slack - 1e-9
        ]
        _, number = min(due)
        had[number] += 1
        chosen[step] = number
    return chosen
