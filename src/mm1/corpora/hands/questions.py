"""Questions on a scene with their answers, and the formats in which documents ask them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from mm1.corpora.hands.english import number, plural, with_article
from mm1.corpora.hands.scene import Scene
from mm1.corpora.hands.world import World

About = Literal["name", "kind", "count", "place", "presence", "word", "size"]
Question = tuple[About, str, str]
"""What it is about, the question, the answer."""

FORMATS = ("Question: {} Short answer:", "Q: {} A:", "Ask: {} Reply:")
"""The formats of training; the first is the paper's (sec. 7)."""
NEW_FORMAT = "Somebody asks: {} We say:"
"""The format that is held out."""


def questions(scene: Scene, world: World, draw: random.Random) -> list[Question]:
    """Return questions on a scene, in no particular order.

    Args:
        scene: The scene.
        world: Has the things that aren't in the scene.
        draw: The choices.
    """
    asked = [*_identity(scene), *_places(scene), *_counts(scene), _presence(scene, world, draw)]
    for group in scene.groups:
        if group.count == 1 and group.size:
            asked.append(("size", f"Is the {group.thing.name} large or small?", group.size))
    if scene.card is not None:
        asked.append(("word", "What does the card say?", scene.card.word))
    return asked


def _identity(scene: Scene) -> list[Question]:
    if scene.layout not in ("alone", "group", "card"):
        return []
    (group,) = scene.groups
    are = "is this" if group.count == 1 else "are these"
    if scene.card is not None:
        return [("name", "What is beside the card?", group.name)]
    return [("name", f"What {are}?", group.name), ("kind", f"What kind of thing {are}?", group.thing.kind)]


def _places(scene: Scene) -> list[Question]:
    if scene.layout == "quarters":
        return [
            question
            for group, place in zip(scene.groups, scene.places, strict=True)
            for question in (
                ("place", f"What is at the {place}?", group.name),
                ("place", f"Where is the {group.name}?", place),
                ("kind", f"What kind of thing is at the {place}?", group.thing.kind),
            )
        ]
    if scene.layout not in ("left-right", "top-bottom"):
        return []
    beside = scene.layout == "left-right"
    places = ("on the left", "on the right") if beside else ("at the top", "at the bottom")
    relations = ("to the left of", "to the right of") if beside else ("above", "below")
    asked: list[Question] = []
    for group, other, place, relation in zip(scene.groups, scene.groups[::-1], places, relations, strict=True):
        asked.append(("place", f"What is {place}?", group.name))
        asked.append(("place", f"What is {relation} the {other.name}?", group.name))
        asked.append(("kind", f"What kind of thing is {place}?", group.thing.kind))
    return asked


def _counts(scene: Scene) -> list[Question]:
    """Ask for numbers where a layout doesn't say that they are one."""
    if scene.layout in ("alone", "card"):
        return []
    numbers = {group.thing.plural: group.count for group in scene.groups if scene.layout != "quarters"}
    if len(scene.groups) > 1:
        kinds = Counter[str]()
        for group in scene.groups:
            kinds[group.thing.kind] += group.count
        numbers |= {plural(kind): count for kind, count in kinds.items()}
    return [("count", f"How many {names} are there?", number(count)) for names, count in numbers.items()]


def _presence(scene: Scene, world: World, draw: random.Random) -> Question:
    there = [group.thing for group in scene.groups]
    is_there = draw.random() < 0.5
    thing = draw.choice(there) if is_there else world.thing(draw, but=there)
    return ("presence", f"Is there {with_article(thing.name)}?", "yes" if is_there else "no")


def one_question(scene: Scene, world: World, draw: random.Random, about: Sequence[About] = ()) -> Question | None:
    """Return a random question on a scene: first what it is about is drawn, then the question.

    Args:
        scene: The scene.
        world: See `questions`.
        draw: The choices.
        about: What it may be about; default: anything. None is returned if there is no such question.
    """
    asked = [question for question in questions(scene, world, draw) if not about or question[0] in about]
    if not asked:
        return None
    topic = draw.choice(sorted({question[0] for question in asked}))
    return draw.choice([question for question in asked if question[0] == topic])
