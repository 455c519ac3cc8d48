"""Conversations for fine-tuning: questions on one picture, and pictures in rounds that follow one convention."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mm1.corpora.dialogue import Turn, dialogue, rounds
from mm1.corpora.hands.conventions import TRAINED
from mm1.corpora.hands.picture import Painter
from mm1.corpora.hands.questions import questions
from mm1.corpora.hands.scene import SMALL, SMALLEST, Scene
from mm1.corpora.hands.world import World
from mm1.corpora.seeded import seeded
from mm1.document import Document, Image, Text
from mm1.progress import track

_SMALL_SHARE = 0.4
"""Share of conversations on small things, which only more pixels show."""
SMALL_CLUTTER = 24
"""Faint shapes around a small thing that is to be found."""


class Conversations:
    """Makes conversations.

    Args:
        world: The world.
        painter: Paints the pictures.
    """

    def __init__(self, world: World, painter: Painter) -> None:
        self._world, self._painter = world, painter

    def on_questions(self, count: int, split: str) -> Iterator[Document]:
        """Yield conversations of one to three questions on one picture."""
        for number in track(range(count), f"hands: {split}"):
            draw = seeded(self._world.seed, split, number)
            scene = self._small(draw) if draw.random() < _SMALL_SHARE else self._world.scene(draw)
            asked = questions(scene, self._world, draw)
            pairs = [(question, answer) for _, question, answer in draw.sample(asked, min(len(asked), 3))]
            turns = rounds([self._image(scene, draw)], pairs[: draw.randint(1, 3)])
            yield dialogue(f"{split}/{number}", turns, form="questions", pictures=[scene.meta()])

    def in_rounds(self, count: int, split: str) -> Iterator[Document]:
        """Yield conversations of two to nine rounds, each on a picture of its own, which follow one convention.

        The first answer is shown and no target: nothing before it tells the convention.
        """
        world = self._world
        for number in track(range(count), f"hands: {split}"):
            draw = seeded(world.seed, split, number)
            convention, is_small = draw.choice(TRAINED), draw.random() < _SMALL_SHARE
            scenes, turns = list[Scene](), list[Turn]()
            for thing in draw.sample(world.things, draw.randint(2, 9)):
                hand = world.hand(draw)
                scene = (
                    world.alone(thing, hand, draw, most=SMALLEST, clutter=SMALL_CLUTTER)
                    if is_small
                    else world.alone(thing, hand, draw, least=0.35, clutter=draw.choice((0, 0, 4)))
                )
                answer = Text(convention.answer(thing), target=bool(scenes))
                scenes.append(scene)
                turns += [("user", [self._image(scene, draw)]), ("assistant", [answer])]
            pictures = [scene.meta() for scene in scenes]
            yield dialogue(f"{split}/{number}", turns, form="rounds", convention=convention.name, pictures=pictures)

    def _small(self, draw: random.Random) -> Scene:
        world = self._world
        return world.alone(world.thing(draw), world.hand(draw), draw, most=SMALL, clutter=SMALL_CLUTTER)

    def _image(self, scene: Scene, draw: random.Random) -> Image:
        return Image(self._painter.paint(scene, draw))
