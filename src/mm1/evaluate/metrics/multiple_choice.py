"""Multiple choice: the option's letter, or its very words.

Models answer "B", "(B)", "B. a dog", "The answer is B" or "a dog". The letter is read from the form, without a
second model, so that the score can be computed again by anyone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mm1.evaluate.metrics.accuracy import normalize_squad
from mm1.evaluate.metrics.metric import Metric, per_pair

_LEADING = re.compile(r"\(?([A-Z])(?:[).:,]|$|\s*\n)")
_ANNOUNCED = re.compile(r"(?:answer|option|choice)\s*(?:is|:)?\s*\(?([A-Z])\b(?!')", re.IGNORECASE)


def chosen_letter(prediction: str) -> str | None:
    """Return the letter that an answer chooses, or None if it names none.

    A letter counts at the beginning, with a bracket, period, colon, comma or nothing after it, or after
    "answer", "option" or "choice". "A dog" therefore chooses nothing: its A is an article.
    """
    text = prediction.strip()
    found = _LEADING.match(text) or _ANNOUNCED.search(text)
    return found.group(1).upper() if found else None


def multiple_choice(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the answer names the right letter or gives the right option's words, else 0.0.

    Args:
        prediction: What the model wrote.
        references: The right letter, and after it the option's words where they are known.
    """
    letters = {reference.strip().upper() for reference in references if len(reference.strip()) == 1}
    letter = chosen_letter(prediction)
    if letter is not None:
        return float(letter in letters)
    return float(normalize_squad(prediction) in {normalize_squad(r) for r in references if len(r.strip()) > 1})


MULTIPLE_CHOICE = Metric(
    "multiple_choice", "multiple choice", "letter or words of the option", per_pair(multiple_choice)
)
