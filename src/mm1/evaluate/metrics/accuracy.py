"""Accuracy: the prediction is one of the reference answers, with or without normalisation."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from mm1.evaluate.metrics.metric import Metric, per_pair

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_OF_A_NUMBER = r"(?<=\d)[^\w\s](?=\d)|(?<!\w)-(?=\$?\.?\d)|(?<=\de)-(?=\d)|(?<!\w)\.(?=\d)"
"""Marks that belong to a number: between two digits (1.5, 1/2, 10:30), a minus sign (also in 1e-5), a leading point."""
_PUNCTUATION = re.compile(rf"({_OF_A_NUMBER})|[{re.escape(string.punctuation)}]")
_ARTICLES = re.compile(r"(?<![\w'’.-])(?:a|an|the)\s+(?!(?:and|or)\b)(?=\S*\w)")


def normalize_answer(answer: str) -> str:
    """Lower the case, remove punctuation and articles, and collapse white space.

    This is the rule of SQuAD's evaluation script (Rajpurkar et al. 2016), which question answering still uses, except
    where that script makes different answers equal by accident:

    - Numbers keep their sign and decimal point: `-5` is not 5, `1.5` not 15, `1/2` not 12. A comma may separate
      thousands: `1,000` is 1000.
    - An article is removed only before a word: "vitamin A" is not "vitamin", and the letter A stays.
    - An answer that would become empty is only put in lower case.
    """
    text = _THOUSANDS.sub("", " ".join(answer.lower().split()))
    normal = " ".join(_PUNCTUATION.sub(r"\1", _ARTICLES.sub("", text)).split())
    return normal or text


def accuracy(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the normalised prediction equals a normalised reference, else 0.0.

    An empty prediction is never right.
    """
    given = normalize_answer(prediction)
    return float(bool(given) and given in map(normalize_answer, references))


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals a reference except for white space at the ends, else 0.0.

    This strict metric is for answers that are numbers, letters or code: `5%` is not 5 here. An empty prediction is
    never right.
    """
    given = prediction.strip()
    return float(bool(given) and given in {reference.strip() for reference in references})


ACCURACY = Metric(
    "accuracy",
    "accuracy",
    "normalisation of SQuAD's evaluation script; numbers keep sign and point, nothing becomes empty",
    per_pair(accuracy),
)
EXACT_MATCH = Metric("exact_match", "exact match", "string equality", per_pair(exact_match))
