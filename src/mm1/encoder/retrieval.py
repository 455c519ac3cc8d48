"""Image-text retrieval: recall at K of captions for pictures, and of pictures for captions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Pairs:
    """Distinct pictures and distinct captions, and which belong together.

    Attributes:
        pictures: (P,) a document's number for each distinct picture.
        captions: The C distinct captions.
        right: (P, C) bool, whether any document has both. Equal captions count as one, which is right for all pictures
            that have it; all captions of a picture are right for it.
    """

    pictures: np.ndarray
    captions: list[str]
    right: torch.Tensor


def distinct_pairs(pictures: list[bytes], captions: list[str]) -> Pairs:
    """Group documents by picture and by caption.

    Args:
        pictures: The key of each document's picture.
        captions: The caption of each document.
    """
    _, first, picture_of = np.unique(np.array(pictures, dtype=object), return_index=True, return_inverse=True)
    texts, caption_of = np.unique(np.array(captions, dtype=object), return_inverse=True)
    right = torch.zeros(len(first), len(texts), dtype=torch.bool)
    right[torch.from_numpy(picture_of), torch.from_numpy(caption_of)] = True
    return Pairs(first, [str(text) for text in texts], right)


def ranks_of_best(similarities: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """Return the rank, from 1, of the first right candidate of each query.

    Args:
        similarities: (Q, C) similarities of queries and candidates.
        right: (Q, C) bool; each query has a right candidate.

    Returns:
        (Q,) int64. Wrong candidates that are as similar as the best right one rank before it, so that an encoder with
        constant features finds nothing.
    """
    best = similarities.masked_fill(~right, float("-inf")).max(1, keepdim=True).values
    return (((similarities >= best) & ~right).sum(1) + 1).numpy()


def chance_recall(right: np.ndarray, candidates: int, k: int) -> float:
    """Return the mean recall at K over the queries for a random order.

    Args:
        right: (Q,) number of right candidates of each query.
        candidates: Number of candidates.
        k: Number of first candidates that count.
    """
    if k >= candidates:
        return 1.0
    # The probability that none of the first k is right is C(n - r, k) / C(n, k).
    values, counts = np.unique(right, return_counts=True)
    missed = [math.comb(candidates - int(r), k) / math.comb(candidates, k) for r in values]
    return float(1 - np.dot(missed, counts) / len(right))
