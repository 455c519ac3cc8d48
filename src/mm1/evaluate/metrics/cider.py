"""CIDEr-D: the similarity of a caption to people's captions, by n-grams weighted with their inverse frequency.

Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation" (CVPR 2015), in the
variant -D that the COCO caption server uses (github.com/tylin/coco-caption, `cider_scorer.py`): n-grams of
1 to 4 words, clipped, with a Gaussian penalty (sigma 6) on the difference in length, times 10. The document
frequencies are those in the references of the scored items.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mm1.evaluate.metrics.metric import Metric
from mm1.evaluate.metrics.tokens import caption_words

if TYPE_CHECKING:
    import numpy as np

MAX_ORDER = 4
SIGMA = 6.0
_SCALE = 10.0

Ngram = tuple[str, ...]
Vector = dict[Ngram, float]


def ngrams(tokens: Sequence[str]) -> Counter[Ngram]:
    """Return the counts of all n-grams of 1 to `MAX_ORDER` tokens."""
    return Counter(
        tuple(tokens[start : start + order])
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(tokens) - order + 1)
    )


def cider_d(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return each item's CIDEr-D.

    Args:
        predictions: One caption per item.
        references: People's captions of each item, at least one.

    Returns:
        (n, 1) float64, between 0 and 10. Tables write 1.0 as 100.
    """
    import numpy as np

    reference_counts = [[ngrams(caption_words(r)) for r in several] for several in references]
    frequencies = Counter(gram for several in reference_counts for gram in set().union(*several))
    log_items = math.log(len(references)) if references else 0.0
    # An n-gram that no reference has gets the weight of one that a single item has.
    weights = {gram: log_items - math.log(count) for gram, count in frequencies.items()}

    def vectors(counts: Counter[Ngram]) -> tuple[list[Vector], list[float], int]:
        by_order: list[Vector] = [{} for _ in range(MAX_ORDER)]
        for gram, count in counts.items():
            by_order[len(gram) - 1][gram] = count * weights.get(gram, log_items)
        norms = [math.sqrt(sum(value * value for value in vector.values())) for vector in by_order]
        # The reference implementation uses the number of bigrams as the length, not the number of words.
        return by_order, norms, sum(count for gram, count in counts.items() if len(gram) == 2)

    scores = []
    for prediction, several in zip(predictions, reference_counts, strict=True):
        candidate = vectors(ngrams(caption_words(prediction)))
        total = sum(_similarity(candidate, vectors(counts)) for counts in several)
        scores.append(_SCALE * total / len(several))
    return np.array(scores, dtype=np.float64).reshape(-1, 1)


def _similarity(
    candidate: tuple[list[Vector], list[float], int], reference: tuple[list[Vector], list[float], int]
) -> float:
    """Return the mean over orders of the clipped cosine, times the length penalty."""
    cosines: Iterable[float] = (
        sum(min(value, r.get(gram, 0.0)) * r.get(gram, 0.0) for gram, value in c.items()) / ((c_norm * r_norm) or 1.0)
        for c, r, c_norm, r_norm in zip(candidate[0], reference[0], candidate[1], reference[1], strict=True)
    )
    penalty = math.exp(-((candidate[2] - reference[2]) ** 2) / (2 * SIGMA**2))
    return sum(cosines) / MAX_ORDER * penalty


CIDER = Metric(
    "cider", "CIDEr", "CIDEr-D of github.com/tylin/coco-caption (Vedantam et al. 2015)", cider_d, maximum=10.0
)
