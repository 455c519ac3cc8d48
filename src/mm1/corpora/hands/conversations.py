"""Conversations for fine-tuning: questions on one picture, and pictures in rounds that follow one convention."""

from __future__ import annotations

from collections.abc import Iterator

from mm1.corpora.dialogue import Turn, dialogue, rounds
from mm1.corpora.hands.conventions import TRAINED
from mm1.corpora.hands.picture import Painter
from mm1.corpora.hands.questions import questions
from mm1.corpora.hands.scene import SMALL, Scene
from mm1.corpora.hands.world import World
from mm1.corpora.seeded import seeded
from mm1.document import Document, Text
from mm1.progress import track

_SMALL_SHARE = 0.4
"""Share of conversations on small things, which only more pixels show."""


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
        world = self._world
        for number in track(range(count), f"hands: {split}"):
            draw = seeded(world.seed, split, number)
            is_small = draw.random() < _SMALL_SHARE
            scene = (
                world.small(world.thing(draw), world.hand(draw), draw, most=SMALL) if is_small else world.scene(draw)
            )
            asked = questions(scene, world, draw)
            pairs = [(question, answer) for _, question, answer in draw.sample(asked, min(len(asked), 3))]
            turns = rounds([self._painter.image(scene, draw)], pairs[: draw.randint(1, 3)])
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
                    world.small(thing, hand, draw)
                    if is_small
                    else world.alone(thing, hand, draw, least=0.35, clutter=draw.choice((0, 0, 4)))
                )
                answer = Text(convention.answer(thing), target=bool(scenes))
                scenes.append(scene)
                turns += [("user", [self._painter.image(scene, draw)]), ("assistant", [answer])]
            pictures = [scene.meta() for scene in scenes]
            yield dialogue(f"{split}/{number}", turns, form="rounds", convention=convention.name, pictures=pictures)
