"""BLEU: the share of a text's n-grams that occur in a reference, times a brevity penalty, over all items together.

Papineni et al. (ACL 2002) as the COCO caption evaluation computes it (github.com/tylin/coco-caption,
`bleu_scorer.py`): with the length of the nearest reference, and 1e-15 and 1e-9 against division by zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mm1.evaluate.metrics.cider import MAX_ORDER, ngrams
from mm1.evaluate.metrics.metric import Metric
from mm1.evaluate.metrics.tokens import caption_words

if TYPE_CHECKING:
    import numpy as np

_TINY, _SMALL = 1e-15, 1e-9


def bleu_statistics(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the statistics of BLEU.

    Returns:
        (n, 10) float64: the text's length, the nearest reference's length, the numbers of n-grams of order 1 to 4, and
        how many of them occur in a reference.
    """
    import numpy as np

    rows = []
    for prediction, several in zip(predictions, references, strict=True):
        tokens = caption_words(prediction)
        other_tokens = [caption_words(reference) for reference in several]
        nearest = min((abs(len(other) - len(tokens)), len(other)) for other in other_tokens)[1]
        guesses = [max(0, len(tokens) - order) for order in range(MAX_ORDER)]
        allowed = ngrams([])
        for other in other_tokens:
            allowed |= ngrams(other)
        correct = [0] * MAX_ORDER
        for gram, count in (ngrams(tokens) & allowed).items():
            correct[len(gram) - 1] += count
        rows.append([len(tokens), nearest, *guesses, *correct])
    return np.array(rows, dtype=np.float64).reshape(-1, 2 + 2 * MAX_ORDER)


def bleu_score(statistics: np.ndarray, order: int) -> np.ndarray:
    """Return BLEU of n-grams up to `order` from statistics (..., n, 10), as an array (...)."""
    import numpy as np

    total = statistics.sum(axis=-2)
    guesses, correct = total[..., 2 : 2 + order], total[..., 2 + MAX_ORDER : 2 + MAX_ORDER + order]
    precision = np.exp(np.log((correct + _TINY) / (guesses + _SMALL)).mean(axis=-1))
    ratio = (total[..., 0] + _TINY) / (total[..., 1] + _SMALL)
    return precision * np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))


def _metric(order: int) -> Metric:
    score: Callable[[np.ndarray], np.ndarray] = partial(bleu_score, order=order)
    source = "BLEU of github.com/tylin/coco-caption (Papineni et al. 2002)"
    return Metric(f"bleu_{order}", f"BLEU-{order}", source, bleu_statistics, score)


BLEU = tuple(_metric(order) for order in range(1, MAX_ORDER + 1))
