"""Multiple choice: the answer is the right option's letter or exact words, as `chosen_letter` reads it."""

from __future__ import annotations

import string
from collections.abc import Sequence

from mm1.evaluate.metrics.accuracy import normalize_answer
from mm1.evaluate.metrics.chosen_letter import USUAL_LETTERS, by_letter, chosen_letter
from mm1.evaluate.metrics.metric import Metric, per_choice


def multiple_choice(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """Return 1.0 if the answer chooses a right option, else 0.0.

    Args:
        prediction: What the model wrote.
        references: The right letters, followed by the right options' words if they are known: `("B", "a dog")`.
        options: The words of all options, in order. Without them only the right options' words are known.
    """
    known = by_letter(options)
    letters, words = split_references(references) if known or not options else ([], list(references))
    if not options:
        known = {**dict.fromkeys((*USUAL_LETTERS, *letters)), **dict(zip(letters, words, strict=False))}
    letter = chosen_letter(prediction, known)
    if letter in letters:
        return 1.0
    # Two options may have the same words, and options that outnumber the letters have only their words.
    chosen = normalize_answer((known[letter] if letter else prediction) or "")
    return float(bool(chosen) and chosen in map(normalize_answer, words))


def split_references(references: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the letters among references, in upper case, and the words. Either may be missing.

    Items with options have as many letters as words, letters first: in `("A", "B")`, B is the words.
    """
    half = len(references) // 2
    if len(references) % 2 == 0 and all(_is_letter(reference) for reference in references[:half]):
        letters, words = references[:half], references[half:]
    elif all(_is_letter(reference) for reference in references):
        letters, words = references, ()
    else:
        letters = [reference for reference in references if _is_letter(reference)]
        words = [reference for reference in references if not _is_letter(reference)]
    return [letter.strip().upper() for letter in letters], list(words)


def _is_letter(reference: str) -> bool:
    return len(reference.strip()) == 1 and reference.strip() in string.ascii_letters


MULTIPLE_CHOICE = Metric(
    "multiple_choice",
    "multiple choice",
    "letter or words of the option, as mm1.evaluate.metrics.chosen_letter reads them",
    per_choice(multiple_choice),
    reads_options=True,
)
