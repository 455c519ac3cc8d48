"""The mixture: the source of every sequence, exactly by weight at every point of the training.

    kinds by their weights --> sources of a kind by their weights

The order repeats after a period, so any stretch of it can be computed directly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from mm1.document import Kind

_LONGEST_PERIOD = 1_000_000


class Alternation:
    """Evenly spread choices: after any number of choices, each option has its share to less than one choice.

    This is the chairman assignment problem with Tijdeman's rule ("The chairman assignment problem", Discrete
    Mathematics 32, 1980): the deviation never exceeds 1 - 1/(2k - 2) for k options. Weights with a common period of
    more than a million choices are rounded to a period of a million.

    Args:
        weights: Non-negative weights with a positive sum.
        count: Largest number of choices.
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

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the choices at the given positions, and how often the same option was chosen before.

        Args:
            positions: (n,) int64 positions, counted from 0.

        Returns:
            (n,) int64 indices into the weights; (n,) int64 counts.
        """
        periods, inside = np.divmod(positions, len(self._once))
        chosen = self._once[inside]
        return chosen, periods * self._per_period[chosen] + self._rank_once[inside]


class Mixture:
    """The source of every sequence.

    Args:
        kind_weights: The weights of the kinds.
        sources: The kind of every source, and its weight among the sources of the kind.
        count: The number of sequences.
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
            of_kind = kinds == kind
            sources[of_kind] = members[inside(ranks[of_kind])[0]]
        return sources


def _rounded(shares: Sequence[Fraction], period: int) -> list[int]:
    """Return whole numbers in proportion to `shares` that add up to `period` (largest remainders)."""
    exact = [share * period for share in shares]
    numbers = [math.floor(number) for number in exact]
    by_remainder = sorted(range(len(shares)), key=lambda n: numbers[n] - exact[n])
    for n in by_remainder[: period - sum(numbers)]:
        numbers[n] += 1
    return numbers


def _alternate(shares: list[float], count: int) -> np.ndarray:
    chosen = np.empty(count, dtype=np.int64)
    options = [number for number, share in enumerate(shares) if share > 0]
    if len(options) == 1:
        chosen.fill(options[0])
        return chosen
    slack = 1 / (2 * len(options) - 2)
    counts = [0] * len(shares)
    for step in range(count):
        due = [
            ((1 - slack - ((step + 1) * shares[number] - counts[number])) / shares[number], number)
            for number in options
            if (step + 1) * shares[number] - counts[number] >= slack - 1e-9
        ]
        _, number = min(due)
        counts[number] += 1
        chosen[step] = number
    return chosen
