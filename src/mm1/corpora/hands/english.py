"""The little English that sentences about things need: plurals, articles, numbers, lists."""

from __future__ import annotations

import re
from collections.abc import Sequence


def word_list(text: str) -> tuple[str, ...]:
    """Return the words of a text that has blanks between them."""
    return tuple(text.split())


NUMBERS = word_list("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen")
"""Words for the numbers from 1 on."""

_IRREGULAR = {
    "mouse": "mice",
    "wolf": "wolves",
    "deer": "deer",
    "fish": "fish",
    "squid": "squid",
    "blowfish": "blowfish",
}
_ENDINGS = ((r"(s|x|ch|sh)$", r"\1es"), (r"([^aeiou])y$", r"\1ies"), (r"(at)o$", r"\1oes"), (r"$", "s"))


def plural(noun: str) -> str:
    """Return the plural of a noun, whose last word is its head."""
    *first, head = noun.split(" ")
    many = _IRREGULAR.get(head)
    if many is None:
        pattern, ending = next((rule for rule in _ENDINGS if re.search(rule[0], head)), _ENDINGS[-1])
        many = re.sub(pattern, ending, head, count=1)
    return " ".join((*first, many))


def with_article(phrase: str) -> str:
    """Return a phrase with its indefinite article: `an owl`."""
    return f"{'an' if re.match('[aeio]|u(?!ni|se)', phrase.lower()) else 'a'} {phrase}"


def number(count: int) -> str:
    """Return a number as a word; from 17 on in digits."""
    return NUMBERS[count - 1] if 1 <= count <= len(NUMBERS) else str(count)


def listed(phrases: Sequence[str]) -> str:
    """Return phrases as a list: `a, b and c`."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def sentence(text: str) -> str:
    """Return a text with a capital letter."""
    return text[0].upper() + text[1:]
