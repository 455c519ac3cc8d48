"""The conventions of pages: ways to answer with a picture of a thing.

A picture alone doesn't show its page's convention; the lines before it do. A convention is a wording in a frame. A
third of them never occur in training; each has a wording and a frame that do, in other conventions: `FOX.` those of
`FOX` and of `fox.`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mm1.corpora.hands.english import number as count_word
from mm1.corpora.hands.english import plural
from mm1.corpora.hands.things import Thing


@dataclass(frozen=True, slots=True)
class Convention:
    """A way to answer.

    Attributes:
        name: The convention's name.
        answer: Maps a thing to the answer.
        is_new: Whether it is held out.
    """

    name: str
    answer: Callable[[Thing], str]
    is_new: bool = False


_WORDINGS: tuple[tuple[str, Callable[[Thing], str]], ...] = (
    ("name", lambda thing: thing.name),
    ("NAME", lambda thing: thing.name.upper()),
    ("names", lambda thing: thing.plural),
    ("kind", lambda thing: thing.kind),
    ("KIND", lambda thing: thing.kind.upper()),
    ("kinds", lambda thing: plural(thing.kind)),
    ("kind: name", lambda thing: f"{thing.kind}: {thing.name}"),
    ("name = kind", lambda thing: f"{thing.name} = {thing.kind}"),
    ("German", lambda thing: thing.german),
    ("GERMAN", lambda thing: thing.german.upper()),
    ("Spanish", lambda thing: thing.spanish),
    ("French", lambda thing: thing.french),
    ("first letter", lambda thing: thing.name[0]),
    ("LAST LETTER", lambda thing: thing.name[-1].upper()),
    ("number of letters", lambda thing: letters(thing.name)),
)
FRAMES = ("{}", "{}.", '"{}"', "({})", "{}!", "{}, {}", "I see {}")


def _convention(number: int, frame: str) -> Convention:
    name, word = _WORDINGS[number]
    is_new = (number + FRAMES.index(frame)) % 3 == 2  # so every wording and every frame has trained conventions
    return Convention(frame.replace("{}", name), lambda thing: frame.replace("{}", word(thing)), is_new)


CONVENTIONS = tuple(_convention(number, frame) for frame in FRAMES for number in range(len(_WORDINGS)))
TRAINED = tuple(convention for convention in CONVENTIONS if not convention.is_new)
NEW = tuple(convention for convention in CONVENTIONS if convention.is_new)


def letters(name: str) -> str:
    """Return the number of letters of a name, as a word."""
    return count_word(sum(letter.isalpha() for letter in name))
