r"""Read which option of multiple choice an answer chooses, by a fixed rule and without a second model.

An answer chooses an option by

1. its letter alone, in either case, optionally in brackets, bold or followed by a mark: `B`, `b`, `(B)`, `B.`, `**B**`;
2. its exact words, ignoring case, articles and punctuation: `a dog`;
3. its letter, a mark and more text: `B) a dog`, `B: because ...`. After a period or a comma the text must be the
   option's words, a reason (`because`, `as`, ...) or a sentence. If no mark follows the letter, the text must be the
   option's words or a reason. So the period of `E. coli` and `J. Smith` belongs to an abbreviation, and the `A` of
   `A dog` is an article.

The rule reads the whole answer this way first, then the text after "answer is", "Answer:" and similar words, then the
text after "the option is" or "Choice:". Otherwise it takes the letter after "option", "choice" or "letter" (`Option B
looks right`), or else the letter in brackets. If one of these steps names several options, or a letter stands next to
another option's words, the answer chooses no option: the rule does not guess.

Published rules take the letter from almost anywhere:

- MMMU's rule (`parse_multi_choice_response`, also in lmms-eval) takes `(B)`, then any B between spaces, in some
  versions any `B.`, then an option's words inside an answer of more than five words. If it finds several it takes the
  last one, and if it finds none, a random option. It reads the first word of "A dog is there" as option A, and does
  not read `b`.
- VLMEvalKit's rule (`can_infer`) takes the only letter among the words, in some versions only near the end, and no
  letter if an A is among more than three words; then the only option whose words occur. A language model reads the
  rest.
- lmms-eval's SEED-Bench takes the first character, and its ScienceQA the letter before a period: `E. coli` is E.

This rule reads no letter inside a sentence, because it may be an article, an initial or a unit, and no option's words
inside a sentence ("it is not a dog").
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from mm1.evaluate.metrics.accuracy import normalize_answer

USUAL_LETTERS = string.ascii_uppercase[:8]
"""The letters to read if the number of options is unknown. I is a word, and later letters are mostly initials."""

_TEX = re.compile(r"\\(?:boxed|text|mathrm|mathbf)\{|\}")
_EMPHASIS = re.compile(r"(?<!\w)[*_`$\\\"'“”‘’]+|[*_`$\\\"'“”‘’]+(?!\w)")
_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\].:,;!?]*")
_LETTER_AND_TEXT = re.compile(
    r"[(\[]?([A-Za-z])(\s*[)\]][.:,]?\s*|\s*:\s*|\s+[-–—]\s+|[.,]?\s*\n\s*|[.,]\s*|\s+)(?=\S)"
)
_ANOTHER = re.compile(r"(?:and\b|or\b|[&/,]|\s)*[(\[]?([A-Z])(?=\W*$|[)\].,;:/&]|\s+(?:and|or|&)\s)")
_CERTAIN = re.compile(r"(?:because|since|is (?:\w+ ){0,2}(?:correct|right|true|best|answer|option|choice))\b", re.I)
_REASON = re.compile(r"(?:as|for|due|given|based|according|which|so|but|not|in|on|from)\b", re.I)
_LISTED = re.compile(r"^\W*([A-Z])[.):]", re.M)
_UNTIL_IT = r"s?\b[^.:=\n]{0,40}?(?:\b(?:is|be)\b|[:=]|\s[-–—]\s)[\s:=]*"
_ANSWER_IS = re.compile(rf"\banswer{_UNTIL_IT}", re.I)
_OPTION_IS = re.compile(rf"\b(?:option|choice){_UNTIL_IT}", re.I)
_NAMED = re.compile(r"\b(?:option|choice|letter|answer)\s+[(\[]?(?-i:([A-Z]))\b(?!['’])", re.I)
_BRACKETED = re.compile(r"(?<!\w)[(\[]([A-Z])[)\]]")


def chosen_letter(prediction: str, options: Mapping[str, str | None] | None = None) -> str | None:
    """Return the letter of the option that an answer chooses, or None if it chooses none.

    Args:
        prediction: What the model wrote.
        options: Each option's words by its letter (upper case), or None if they are unknown. Default: the usual
            letters, with unknown words.
    """
    reader = _Reader(dict.fromkeys(USUAL_LETTERS) if options is None else options)
    text = _EMPHASIS.sub("", _TEX.sub("", prediction)).strip()
    lists_options = len(set(_LISTED.findall(text))) > 1
    if not lists_options and (letter := reader.read(text)):
        return letter
    for named in (
        {reader.read(text[found.end() :]) for found in _ANSWER_IS.finditer(text)},
        {reader.read(text[found.end() :]) for found in _OPTION_IS.finditer(text)},
        {found[1] for found in _NAMED.finditer(text) if reader.agrees(found[1], text[found.end() :])},
        {found[1] for found in _BRACKETED.finditer(text) if reader.agrees(found[1], text[found.end() :])},
    ):
        letters = named & reader.options.keys()
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def by_letter(options: Sequence[str]) -> dict[str, str | None]:
    """Return options' words by their letters, or an empty dict if there are more options than letters."""
    letters = string.ascii_uppercase
    return dict(zip(letters, options, strict=False)) if len(options) <= len(letters) else {}


class _Reader:
    """Reads which option the beginning of a text names."""

    def __init__(self, options: Mapping[str, str | None]) -> None:
        self.options = options
        self._normal = {letter: normalize_answer(words) for letter, words in options.items() if words is not None}

    def read(self, text: str) -> str | None:
        """Return the option's letter, or None if the text names no option."""
        text = text.strip()
        if alone := _ALONE.fullmatch(text):
            return self._by_lower_case_words(text) or self._letter(alone[1]) or self._by_words(text)
        if letter := self._by_words(text) or self._by_words(text.partition("\n")[0]):
            return letter
        found = _LETTER_AND_TEXT.match(text)
        if found is None or not self._is_option_letter(found[1], found[2], text[found.end() :]):
            return None
        return self._letter(found[1])

    def agrees(self, letter: str, text: str) -> bool:
        """Return whether the text after a letter is not the words of another option."""
        return self._by_words(text.lstrip(" )].:,-–—")) in (None, letter)

    def _letter(self, letter: str) -> str | None:
        return letter.upper() if letter.upper() in self.options else None

    def _by_lower_case_words(self, text: str) -> str | None:
        """Return the option with exactly this text, if it is lower case: `b` is the option `b` before the letter B."""
        return next((letter for letter, words in self.options.items() if words == text and text.islower()), None)

    def _by_words(self, text: str) -> str | None:
        normal = normalize_answer(text)
        return next((letter for letter, words in self._normal.items() if normal and words == normal), None)

    def _is_option_letter(self, letter: str, mark: str, text: str) -> bool:
        """Return whether a letter names an option, given the mark (possibly only space) and the text after it."""
        own, normal = self._normal.get(letter.upper()), normalize_answer(text)
        if own and (f"{normal} ".startswith(f"{own} ") or own.startswith(normal)):
            return True  # the option's words, possibly cut off or followed by more text
        another = _ANOTHER.match(text)
        if self._by_words(text) or (another and another[1] in self.options):
            return False
        mark = "\n" if "\n" in mark else mark.strip()
        if letter.islower():
            return mark[:1] in (")", "]")
        if mark in (".", ","):
            sentence = text[0].isupper() and len(text.split()) > 2
            return own is None or sentence or bool(_CERTAIN.match(text) or _REASON.match(text))
        return bool(mark or _CERTAIN.match(text) or (letter != "A" and _REASON.match(text)))
