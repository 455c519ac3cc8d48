"""The things of the world: their names in four languages, kind and meaning."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mm1.corpora.hands import sources
from mm1.corpora.hands.english import number, plural
from mm1.corpora.hands.vocabulary import KINDS, MEANT, KindOfThing, in_turn
from mm1.corpora.seeded import seeded
from mm1.corpora.wordnet import Meaning, noun_senses
from mm1.data.skips import Skips

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Thing:
    """A thing.

    Attributes:
        name: Its English name, in the singular.
        kind: Its kind in plain words, such as `mammal`.
        german: Its German name.
        spanish: Its Spanish name.
        french: Its French name.
        gloss: What it is, from WordNet: `alert carnivorous mammal with pointed muzzle and ears and a bushy tail`.
    """

    name: str
    kind: str
    german: str
    spanish: str
    french: str
    gloss: str

    @cached_property
    def plural(self) -> str:
        """The English name in the plural."""
        return plural(self.name)

    @property
    def icon(self) -> str:
        """The name of its drawings."""
        return sources.icon_name(self.name)

    @property
    def names(self) -> tuple[str, ...]:
        """All its names."""
        return (self.name, self.plural, self.german, self.spanish, self.french)

    def counted(self, count: int) -> str:
        """Return so many of it: `fox` or `two foxes`."""
        return self.name if count == 1 else f"{number(count)} {self.plural}"


def read_things(count: int, drawn: Collection[str], skips: Skips) -> list[Thing]:
    """Return things in the order of `vocabulary.in_turn`.

    Args:
        count: Most things.
        drawn: The names of the drawings that every hand has.
        skips: Counts what is left out.

    Raises:
        UserError: If a package can't be downloaded or read.
    """
    labels = {language: sources.read_labels(language) for language in sources.LANGUAGES}
    codes = {label: code for code, label in labels["en"].items()}
    senses = noun_senses({label.lower() for label, _ in in_turn()})
    things: list[Thing] = []
    for label, kind in in_turn():
        gloss = _gloss(label, kind, senses.get(label.lower(), []))
        if label not in codes:
            skips.add("thing without names", label)
        elif sources.icon_name(label) not in drawn:
            skips.add("thing that a hand doesn't draw", label)
        elif gloss is None:
            skips.add("thing without a gloss", label)
        elif len(things) == count:
            skips.add("thing beyond the option things", label)
        else:
            german, spanish, french = (labels[language][codes[label]] for language in sources.LANGUAGES[1:])
            things.append(Thing(label, kind.name, german, spanish, french, gloss))
    return things


def _gloss(label: str, kind: KindOfThing, meanings: Sequence[Meaning]) -> str | None:
    """Return the definition that fits a thing of a kind, without examples and remarks."""
    for file in kind.files:
        for meaning in meanings:
            if meaning.file == file and MEANT.get(label, "") in meaning.gloss:
                definition = re.split("[;:]", meaning.gloss)[0]
                return re.sub(r"\s*\([^)]*\)", "", definition).strip()
    return None


def hold_out(things: list[Thing], spoken: Iterable[str], seed: int) -> tuple[list[Thing], list[Thing]]:
    """Divide things into those of training and those whose names never occur in it.

    A name that another thing's names or gloss, a kind, or a text of the corpus contains can't be held out (`dog` and
    `hot dog`).

    Args:
        things: All things.
        spoken: What the corpus says besides.
        seed: The seed of the choice.
    """
    said = words([*spoken, *(kind.name for kind in KINDS)])
    of = {thing.name: words((*thing.names, thing.gloss)) for thing in things}
    new: list[Thing] = []
    for thing in seeded(seed, "held-out things").sample(things, len(things)):
        others = said.union(*(of[other.name] for other in things if other is not thing))
        if len(new) < round(HELD_OUT_SHARE * len(things)) and not words(thing.names) & others:
            new.append(thing)
    return [thing for thing in things if thing not in new], [thing for thing in things if thing in new]


def words(texts: Iterable[str]) -> set[str]:
    """Return the words of texts in lower case."""
    return {word for text in texts for word in re.findall(r"\w+", text.lower())}
