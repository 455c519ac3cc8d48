"""ROUGE-L: the longest common subsequence of a text and its references.

Lin (2004) as the COCO caption evaluation computes it (github.com/tylin/coco-caption, `rouge.py`): the best
precision and the best recall over the references, combined with beta 1.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from mm1.evaluate.metrics.metric import Metric, per_pair
from mm1.evaluate.metrics.tokens import caption_tokens

BETA = 1.2


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Return ROUGE-L of one text, between 0 and 1."""
    words = caption_tokens(prediction)
    precision = recall = 0.0
    for reference in references:
        others = caption_tokens(reference)
        common = _longest_common_subsequence(words, others)
        precision = max(precision, common / max(1, len(words)))
        recall = max(recall, common / max(1, len(others)))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    above = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for column, second in enumerate(other):
            row.append(above[column] + 1 if word == second else max(above[column + 1], row[column]))
        above = row
    return above[-1]


ROUGE_L = Metric("rouge_l", "ROUGE-L", "ROUGE-L of github.com/tylin/coco-caption (Lin 2004)", per_pair(rouge_l))
