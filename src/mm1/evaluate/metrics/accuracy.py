"""Accuracy: the prediction is one of the reference answers, with or without normalisation."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from mm1.evaluate.metrics.metric import Metric, per_pair

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_squad(answer: str) -> str:
    """Lower the case, drop punctuation and articles, join white space.

    The rule of SQuAD's evaluation script (Rajpurkar et al. 2016), which question answering has kept.
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def accuracy(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the normalised prediction equals a normalised reference, else 0.0."""
    return float(normalize_squad(prediction) in {normalize_squad(reference) for reference in references})


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals a reference up to white space at the ends, else 0.0."""
    return float(prediction.strip() in {reference.strip() for reference in references})


ACCURACY = Metric("accuracy", "accuracy", "normalisation of SQuAD's evaluation script", per_pair(accuracy))
EXACT_MATCH = Metric("exact_match", "exact match", "string equality", per_pair(exact_match))
