"""ANLS: one minus the normalised edit distance to the nearest reference, and zero for a distance of one half or more.

Biten et al., "Scene Text Visual Question Answering" (ICCV 2019), as the DocVQA challenge computes it: case and white
space at the ends don't count, and the threshold is 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

from mm1.evaluate.metrics.metric import Metric, per_pair

THRESHOLD = 0.5


def anls(prediction: str, references: Sequence[str]) -> float:
    """Return the normalised Levenshtein similarity of one answer, between 0 and 1."""
    given = " ".join(prediction.lower().split())
    best = 0.0
    for reference in references:
        truth = " ".join(reference.lower().split())
        longest = max(len(given), len(truth))
        distance = edit_distance(given, truth) / longest if given else 1.0  # an empty answer is never right
        if distance < THRESHOLD:
            best = max(best, 1.0 - distance)
    return best


def edit_distance(one: str, other: str) -> int:
    """Return the number of insertions, deletions and replacements of characters that turn one text into the other."""
    above = list(range(len(other) + 1))
    for count, character in enumerate(one, 1):
        row = [count]
        for column, second in enumerate(other):
            row.append(min(above[column] + (character != second), above[column + 1] + 1, row[column] + 1))
        above = row
    return above[-1]


ANLS = Metric("anls", "ANLS", "Biten et al. 2019, threshold 0.5 (DocVQA)", per_pair(anls))
