"""Interleaved documents: pages of one convention, of prose, of questions, of invented words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from mm1.corpora.hands.conventions import TRAINED
from mm1.corpora.hands.english import number
from mm1.corpora.hands.picture import Painter
from mm1.corpora.hands.questions import FORMATS, one_question
from mm1.corpora.hands.scene import Layout, Scene
from mm1.corpora.hands.tales import definition, facts, tale
from mm1.corpora.hands.world import World
from mm1.corpora.pages import OPENINGS, SHARE_WITH_OPENING
from mm1.corpora.seeded import seeded
from mm1.document import Document, Part, Text
from mm1.progress import track

FORMS = (("convention", 0.45), ("prose", 0.2), ("questions", 0.15), ("words", 0.2))
"""The forms of pages with their shares."""

_IN_PROSE: tuple[Layout, ...] = ("alone", "alone", "group", "left-right", "top-bottom")

Lines = tuple[list[Part], list[Scene], dict[str, object]]
"""The parts, the scenes of the pictures, and what `meta` says besides."""


class Pages:
    """Makes pages.

    Args:
        world: The world.
        painter: Paints the pictures.
        words: The invented words of training.
    """

    def __init__(self, world: World, painter: Painter, words: Sequence[str]) -> None:
        self._world, self._painter, self._words = world, painter, words

    def __call__(self, count: int, split: str) -> Iterator[Document]:
        """Yield so many pages; each is drawn by the split's name and its number."""
        makers = {
            "convention": self._of_convention,
            "prose": self._of_prose,
            "questions": self._of_questions,
            "words": self._of_words,
        }
        for page in track(range(count), f"hands: {split}"):
            draw = seeded(self._world.seed, split, page)
            form = draw.choices([name for name, _ in FORMS], [share for _, share in FORMS])[0]
            parts, scenes, more = makers[form](draw)
            if form != "prose" and draw.random() < SHARE_WITH_OPENING:
                parts.insert(0, Text(draw.choice(OPENINGS) + "\n"))
            meta = {"form": form, **more, "pictures": [scene.meta() for scene in scenes]}
            yield Document(f"{split}/{page}", "interleaved", tuple(parts), meta)

    def _of_convention(self, draw: random.Random) -> Lines:
        world, convention = self._world, draw.choice(TRAINED)
        # Two thirds of the pages have 6 to 12 pictures.
        count = draw.randint(6, 12) if draw.random() < 2 / 3 else draw.randint(2, 5)
        scenes, parts = [], list[Part]()
        for thing in draw.sample(world.things, min(count, len(world.things))):
            scenes.append(world.alone(thing, world.hand(draw), draw, least=0.35, clutter=draw.choice((0, 0, 4))))
            parts += [self._painter.image(scenes[-1], draw), Text(f" {convention.answer(thing)}\n")]
        return parts, scenes, {"convention": convention.name}

    def _of_questions(self, draw: random.Random) -> Lines:
        form, scenes, parts = draw.choice(FORMATS), list[Scene](), list[Part]()
        asked = []
        for _ in range(draw.randint(2, 8)):
            scene = self._world.scene(draw)
            question = one_question(scene, self._world, draw)
            assert question is not None
            scenes.append(scene)
            asked.append(question[0])
            prompt = Text(f" {form.format(question[1])}", target=False)
            parts += [self._painter.image(scene, draw), prompt, Text(f" {question[2]}\n")]
        return parts, scenes, {"format": form, "about": asked}

    def _of_words(self, draw: random.Random) -> Lines:
        """Show things by one hand with invented words for them, then the same by others."""
        world = self._world
        things = draw.sample(world.things, draw.randint(2, 4))
        words = dict(zip(things, draw.sample(self._words, len(things)), strict=True))
        form = draw.choice(("{}", "{}", "this is a {}", "a {}"))
        first, *others = draw.sample(world.hands, len(world.hands))
        shown = [(thing, first) for _ in range(draw.randint(1, 2)) for thing in things]
        shown += [(draw.choice(things), draw.choice(others)) for _ in range(draw.randint(3, 6))]
        scenes, parts = [], list[Part]()
        for thing, hand in shown:
            scenes.append(world.alone(thing, hand, draw, least=0.35))
            parts += [self._painter.image(scenes[-1], draw), Text(f" {form.format(words[thing])}\n")]
        return parts, scenes, {"words": {thing.name: word for thing, word in words.items()}, "line": form}

    def _of_prose(self, draw: random.Random) -> Lines:
        """Write about one to three things, with a picture of each within or after the text on it."""
        world, scenes, parts = self._world, list[Scene](), list[Part]()
        for thing in draw.sample(world.things, draw.randint(1, 3)):
            scene = world.scene(draw, layout=draw.choice(_IN_PROSE), first=thing)
            scenes.append(scene)
            about = [definition(thing), *draw.sample(facts(thing)[1:], draw.randint(1, 2))]
            if draw.random() < 0.5:
                about.append(tale(thing, world.thing(draw, but=[thing]), draw, claims=False))
            style = draw.randrange(3)
            if style == 0:  # the text helps with the picture
                said = _this_one(scene) if draw.random() < 0.5 else _said(scene, draw)
                parts += [Text(" ".join(about) + "\n"), self._painter.image(scene, draw), Text(f" {said}\n")]
            elif style == 1:  # only the picture tells what the text is about
                parts += [self._painter.image(scene, draw), Text(f" {' '.join(about)}\n")]
            else:
                parts += [self._painter.image(scene, draw), Text(f" {_said(scene, draw)} {' '.join(about)}\n")]
        return parts, scenes, {}


def _said(scene: Scene, draw: random.Random) -> str:
    """Return a sentence that says what a picture shows."""
    first = scene.groups[0]
    verb = "is" if first.count == 1 else "are"
    if scene.layout == "alone":
        return draw.choice(
            (f"This is {first.phrase}.", f"Here is {first.phrase}.", f"The picture shows {first.phrase}.")
        )
    if scene.layout == "group":
        return draw.choice((f"Here are {first.phrase}.", f"The picture shows {first.phrase}."))
    other = scene.groups[1]
    if draw.random() < 0.5:
        relation = "to the left of" if scene.layout == "left-right" else "above"
        return f"Here {verb} {first.phrase} {relation} {other.phrase}."
    return f"{draw.choice(('We see', 'The picture shows'))} {first.phrase} and {other.phrase}."


def _this_one(scene: Scene) -> str:
    """Return a sentence that says what a picture shows without the name of its first thing, which the text has."""
    first = scene.groups[0]
    this, verb = ("This one", "is") if first.count == 1 else ("These", "are")
    if len(scene.groups) == 2:
        relation = "to the left of" if scene.layout == "left-right" else "above"
        return f"{this} {verb} {relation} {scene.groups[1].phrase}."
    if first.count > 1:
        return f"Here are {number(first.count)} of them."
    return f"{this} is {first.size}." if first.size else f"{this} is alone."
