"""Local steps on text: length, and quality by rules that hold in any language.

The rules are those of Gopher (arXiv 2112.11446, table A1) without the one on English stop words. Rules on words don't
apply to scripts without spaces.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mm1.clean.step import Dropped, LocalStep
from mm1.document import Document, Kind

# Kana, CJK ideographs, Thai, Lao, Burmese, Khmer; Hangul is written with spaces.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_UNSPACED = re.compile(f"[{UNSPACED}]")
_BULLETS = ("•", "‣", "▪", "●", "*", "-")
# Largest share of a text's characters in the most frequent n-gram (n = 2, 3, 4), and in n-grams that occur more than
# once (n = 5 to 10): Gopher, table A1.
_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED_NGRAM = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


@dataclass(frozen=True)
class TextLength(LocalStep):
    """Drop documents with too little or too much text.

    Attributes:
        min_characters: Fewest characters, without white space at the ends.
        max_characters: Most characters, without white space at the ends.
        kinds: Kinds of documents that the step applies to.
    """

    min_characters: int = 1
    max_characters: int = 1_000_000
    kinds: tuple[Kind, ...] = ("caption", "interleaved", "text")

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop the document if its text is outside the limits."""
        if document.kind not in self.kinds:
            return document
        length = len(document.text.strip())
        if length < self.min_characters:
            return dropped.drop(f"text below {self.min_characters:,} characters", document)
        if length > self.max_characters:
            return dropped.drop(f"text above {self.max_characters:,} characters", document)
        return document


@dataclass(frozen=True)
class TextQuality(LocalStep):
    """Drop documents whose text is not prose: symbols, lists of fragments, repetition.

    Attributes:
        min_words: The rules apply to texts with at least this many words.
        min_word_length: Least mean characters per word.
        max_word_length: Largest mean characters per word.
        max_symbols: Largest ratio of `#` and ellipses to words.
        max_bullet_lines: Largest share of lines that begin with a bullet.
        max_ellipsis_lines: Largest share of lines that end with an ellipsis.
        min_alphabetic: Least share of words with a letter.
        max_repeated_lines: Largest share of lines that repeat an earlier one.
        repetition: Whether to apply the rules on repeated n-grams of words.
        kinds: Kinds of documents that the step applies to.
    """

    min_words: int = 20
    min_word_length: float = 3.0
    max_word_length: float = 10.0
    max_symbols: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic: float = 0.8
    max_repeated_lines: float = 0.3
    repetition: bool = True
    kinds: tuple[Kind, ...] = ("interleaved", "text")

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop the document if it breaks a rule; the reason is the first one broken."""
        if document.kind not in self.kinds:
            return document
        text = document.text
        words = text.split()
        unspaced = len(_UNSPACED.findall(text)) > 0.3 * len("".join(words))
        if len(words) < self.min_words and not unspaced:
            return document
        reason = self._lines(text)
        if reason is None and not unspaced:
            reason = self._words(text, words) or (self._ngrams(words) if self.repetition else None)
        return document if reason is None else dropped.drop(reason, document)

    def _lines(self, text: str) -> str | None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if sum(line.startswith(_BULLETS) for line in lines) > self.max_bullet_lines * len(lines):
            return "most lines begin with a bullet"
        if sum(line.endswith(("...", "…")) for line in lines) > self.max_ellipsis_lines * len(lines):
            return "many lines end with an ellipsis"
        if len(lines) - len(set(lines)) > self.max_repeated_lines * len(lines):
            return "many lines came before"
        return None

    def _words(self, text: str, words: Sequence[str]) -> str | None:
        mean = sum(map(len, words)) / len(words)
        if not self.min_word_length <= mean <= self.max_word_length:
            return f"mean length of words outside of {self.min_word_length:g} to {self.max_word_length:g}"
        if text.count("#") + text.count("...") + text.count("…") > self.max_symbols * len(words):
            return "many # or ellipses"
        if sum(any(map(str.isalpha, word)) for word in words) < self.min_alphabetic * len(words):
            return "many words without a letter"
        return None

    def _ngrams(self, words: Sequence[str]) -> str | None:
        characters = sum(map(len, words))
        for n, limit in _TOP_NGRAM.items():
            counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
            ngram, count = max(counts.items(), key=lambda item: item[1] * sum(map(len, item[0])))
            if count > 1 and count * sum(map(len, ngram)) > limit * characters:
                return f"one {n}-gram of words makes up much of the text"
        for n, limit in _REPEATED_NGRAM.items():
            if _repeated_characters(words, n) > limit * characters:
                return f"repeated {n}-grams of words make up much of the text"
        return None


def _repeated_characters(words: Sequence[str], n: int) -> int:
    """Return the number of the words' characters in n-grams that repeat an earlier one; each counts once."""
    seen: set[tuple[str, ...]] = set()
    repeated = covered = 0
    for start in range(len(words) - n + 1):
        ngram = tuple(words[start : start + n])
        if ngram in seen:
            repeated += sum(map(len, words[max(start, covered) : start + n]))
            covered = start + n
        seen.add(ngram)
    return repeated
