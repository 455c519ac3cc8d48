"""The conventions of pages: ways to answer with a picture of a thing.

A picture alone doesn't show its page's convention; the lines before it do. A third of them never occur in training.
Each of those puts together what trained ones have: `FOX.` the capitals of `FOX` and the full stop of `fox.`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mm1.corpora.hands.english import number, sentence, with_article
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


CONVENTIONS = (
    Convention("name", lambda thing: thing.name),
    Convention("NAME", lambda thing: thing.name.upper()),
    Convention("Name", lambda thing: sentence(thing.name)),
    Convention("name.", lambda thing: f"{thing.name}."),
    Convention('"name"', lambda thing: f'"{thing.name}"'),
    Convention("name, name", lambda thing: f"{thing.name}, {thing.name}"),
    Convention("plural", lambda thing: thing.plural),
    Convention("kind", lambda thing: thing.kind),
    Convention("KIND", lambda thing: thing.kind.upper()),
    Convention("kind: name", lambda thing: f"{thing.kind}: {thing.name}"),
    Convention("name (kind)", lambda thing: f"{thing.name} ({thing.kind})"),
    Convention("German", lambda thing: thing.german),
    Convention("Spanish", lambda thing: thing.spanish),
    Convention("French", lambda thing: thing.french),
    Convention("first letter", lambda thing: thing.name[0]),
    Convention("last letter", lambda thing: thing.name[-1]),
    Convention("letters", lambda thing: letters(thing.name)),
    Convention("a picture of ...", lambda thing: f"a picture of {with_article(thing.name)}"),
    Convention("it is ... .", lambda thing: f"it is {with_article(thing.name)}."),
    Convention("NAME.", lambda thing: f"{thing.name.upper()}.", is_new=True),
    Convention("Kind", lambda thing: sentence(thing.kind), is_new=True),
    Convention('"kind"', lambda thing: f'"{thing.kind}"', is_new=True),
    Convention("KIND: NAME", lambda thing: f"{thing.kind}: {thing.name}".upper(), is_new=True),
    Convention("GERMAN", lambda thing: thing.german.upper(), is_new=True),
    Convention("Spanish (kind)", lambda thing: f"{thing.spanish} ({thing.kind})", is_new=True),
    Convention("plural, plural", lambda thing: f"{thing.plural}, {thing.plural}", is_new=True),
    Convention("FIRST LETTER", lambda thing: thing.name[0].upper(), is_new=True),
    Convention("it is kind.", lambda thing: f"it is {with_article(thing.kind)}.", is_new=True),
)
TRAINED = tuple(convention for convention in CONVENTIONS if not convention.is_new)
NEW = tuple(convention for convention in CONVENTIONS if convention.is_new)


def letters(name: str) -> str:
    """Return the number of letters of a name, as a word."""
    return number(sum(letter.isalpha() for letter in name))
