"""Sentences about things: what they are, what they are called, and short tales that they occur in."""

from __future__ import annotations

import random
import re

from mm1.corpora.hands.conventions import letters
from mm1.corpora.hands.english import plural, sentence, with_article, word_list
from mm1.corpora.hands.things import Thing

_OPEN = re.compile(r"(a|an|the|any|one|each|every|either)\b")
_MASS = re.compile(r"(electronic )?equipment|ice cream")
_MANY = re.compile(r"[\w ,-]*(birds|mammals)\b")

PEOPLE = word_list(
    "Anna Ben Clara David Emma Frank Greta Henry Ida Jonas Kate Leo Mary Nora Oscar Paul Ruth Sam Tina Tom"
)
PLACES = (
    "near the river", "behind the old wall", "under a bridge", "on the hill", "in the garden", "by the road",
    "at the market", "in a small village", "at the end of the street", "on the beach", "in the forest", "by the lake",
    "in the kitchen", "in the yard", "on a long table", "in front of the gate",
)  # fmt: skip
TIMES = (
    "One morning", "Last summer", "On a cold evening", "In the spring", "After lunch", "Before the rain",
    "Late at night", "On Sunday", "Yesterday", "Long ago", "When the sun came up", "At the end of the day",
)  # fmt: skip
LOOKS = word_list("old new little strange beautiful quiet bright dusty famous lost heavy funny")
_ENDINGS = (
    "Nobody knew why.", "That was a good day.", "Then everybody went home.", "{person} never forgot it.",
    "It stayed there for a long time.", "And so it ended.", "{person} smiled and said nothing.",
    "The next day it was gone.", "They told all their friends.", "It was the best story of the year.",
)  # fmt: skip
_OPENINGS = (
    "{time} {person} saw {a} {place}.", "{time} there was {a} {place}.", "{person} had always wanted to see {a}.",
    "{person} looked for {a} {place}.", "There once was {a_look} {place}.", "{time} {person} found {a_look} {place}.",
    "{person} drew {a} and put the picture on the wall.",
)  # fmt: skip
_MIDDLES = (
    "{person} asked {friend} about the {name}.", "Not far from it was {b_look}.",
    "First came the {name}, then the {other}.",
    '"Is that {a}?" asked {friend}. "No," said {person}, "it is {b}."', "{person} wrote the word {name} on a card.",
    "{friend} liked the {other} more than the {name}.", "The {name} is {a_kind}, but the {other} is {other_kind}.",
    "{friend} had never seen so many {others} {place}.",
)  # fmt: skip
_CLAIMS = (
    "Beside the {name} there was {b}.", "The {name} was to the left of the {other}.",
    "The {name} was above the {other}.", '"How many {names} are there?" asked {friend}. "Two," said {person}.',
    "It was a small {name}, and the {other} was large.", "{person} counted: one {name}, two {names}, three {names}.",
)  # fmt: skip
"""Sentences on places, numbers and sizes, which a picture beside the tale would have to show."""


def spoken() -> tuple[str, ...]:
    """Return all that tales say besides the names of things."""
    return (*PEOPLE, *PLACES, *TIMES, *LOOKS, *_ENDINGS, *_OPENINGS, *_MIDDLES, *_CLAIMS)


def definition(thing: Thing) -> str:
    """Return what a thing is, as a sentence."""
    is_whole = _OPEN.match(thing.gloss) or _MASS.match(thing.gloss)
    if not is_whole and _MANY.match(thing.gloss):
        return f"{sentence(thing.plural)} are {thing.gloss}."
    return f"{sentence(with_article(thing.name))} is {thing.gloss if is_whole else with_article(thing.gloss)}."


def facts(thing: Thing) -> list[str]:
    """Return sentences on a thing: what it is, its kind, its names, its word."""
    name, kind = thing.name, thing.kind
    return [
        definition(thing),
        f"{sentence(with_article(name))} is {with_article(kind)}.",
        f"{sentence(thing.plural)} are {plural(kind)}.",
        f"In German {with_article(name)} is called {thing.german}.",
        f"In Spanish {with_article(name)} is called {thing.spanish}.",
        f"In French {with_article(name)} is called {thing.french}.",
        f"The German word for {name} is {thing.german}, the Spanish word is {thing.spanish}, the French word is "
        f"{thing.french}.",
        f"One {name}, two {thing.plural}.",
        f"The word {name} begins with {name[0]} and ends with {name[-1]}.",
        f"The word {name} has {letters(name)} letters.",
        f"{name.upper()} is how {name} is written in large letters.",
    ]


def tale(thing: Thing, other: Thing, draw: random.Random, *, claims: bool = True) -> str:
    """Return a short tale about two things.

    Args:
        thing: The one.
        other: The other.
        draw: The choices.
        claims: Whether it says where and how many they are, and how large.
    """
    person, friend = draw.sample(PEOPLE, 2)
    slots = {
        "person": person,
        "friend": friend,
        "a": with_article(thing.name),
        "b": with_article(other.name),
        "name": thing.name,
        "names": thing.plural,
        "other": other.name,
        "others": other.plural,
        "a_kind": with_article(thing.kind),
        "other_kind": with_article(other.kind),
    }

    def filled(template: str) -> str:
        look, other_look = draw.sample(LOOKS, 2)
        looks = {"a_look": with_article(f"{look} {thing.name}"), "b_look": with_article(f"{other_look} {other.name}")}
        where = {"place": draw.choice(PLACES), "time": draw.choice(TIMES)}
        return sentence(template.format(**slots, **looks, **where))

    middles = draw.sample(_MIDDLES + _CLAIMS if claims else _MIDDLES, draw.randint(2, 4))
    return " ".join(map(filled, (draw.choice(_OPENINGS), *middles, draw.choice(_ENDINGS))))
