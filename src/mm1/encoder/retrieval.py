"""Image-text retrieval: is a right caption among the first K that a picture finds, and the other way round?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Pairs:
    """Distinct pictures and distinct captions, and which go together.

    Attributes:
        pictures: (P,) one document number for each distinct picture.
        captions: The C distinct captions.
        right: (P, C) bool: whether some document has both. Captions that are alike are one, and right for all
            pictures that have it; so several captions of one picture are all right for it.
    """

    pictures: np.ndarray
    captions: list[str]
    right: torch.Tensor


def distinct_pairs(pictures: list[bytes], captions: list[str]) -> Pairs:
    """Put documents of the same picture, or the same caption, together.

    Args:
        pictures: Of each document, what its picture is known by.
        captions: Of each document.
    """
    _, first, picture_of = np.unique(np.array(pictures, dtype=object), return_index=True, return_inverse=True)
    texts, caption_of = np.unique(np.array(captions, dtype=object), return_inverse=True)
    right = torch.zeros(len(first), len(texts), dtype=torch.bool)
    right[torch.from_numpy(picture_of), torch.from_numpy(caption_of)] = True
    return Pairs(first, [str(text) for text in texts], right)


def ranks_of_best(similarities: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """Return at which place, from 1, each query finds the first right candidate.

    Args:
        similarities: (Q, C) of queries and candidates.
        right: (Q, C) bool; each query has a right candidate.

    Returns:
        (Q,) int64. Wrong candidates that are as similar as the best right one come before it, so that an encoder that
        tells nothing apart finds nothing.
    """
    best = similarities.masked_fill(~right, float("-inf")).max(1, keepdim=True).values
    return (((similarities >= best) & ~right).sum(1) + 1).numpy()


def chance_recall(right: np.ndarray, candidates: int, k: int) -> float:
    """Return the recall at K of a random order, on average over the queries.

    Args:
        right: (Q,) how many of the candidates are right for each query.
        candidates: How many there are.
        k: How many are looked at.
    """
    if k >= candidates:
        return 1.0
    # None of the first k is right: C(n - r, k) / C(n, k).
    values, counts = np.unique(right, return_counts=True)
    missed = [math.comb(candidates - int(r), k) / math.comb(candidates, k) for r in values]
    return float(1 - np.dot(missed, counts) / len(right))
