"""Items for evaluation: each split has a split of shots of its own, and no picture of either occurs in training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from mm1.corpora.hands.captions import captions
from mm1.corpora.hands.conventions import Convention
from mm1.corpora.hands.picture import Painter
from mm1.corpora.hands.questions import FORMATS, NEW_FORMAT, About, Question, one_question
from mm1.corpora.hands.scene import Layout, Scene
from mm1.corpora.hands.things import Thing
from mm1.corpora.hands.world import World
from mm1.corpora.seeded import seeded
from mm1.document import Document, Text
from mm1.progress import track

WORDS_PER_PAGE = 3
SHOTS_PER_PAGE = 9
QUERIES_PER_PAGE = 3
_SCENES: tuple[Layout, ...] = ("group", "left-right", "top-bottom", "quarters", "mixed")

Make = Callable[[int, random.Random], Document]


class Items:
    """Makes items.

    Args:
        world: The world.
        painter: Paints the pictures.
    """

    def __init__(self, world: World, painter: Painter) -> None:
        self._world, self._painter = world, painter

    def _each(self, split: str, count: int) -> Iterator[tuple[int, str, random.Random]]:
        for number in track(range(count), f"hands: {split}"):
            yield number, f"{split}/{number}", seeded(self._world.seed, split, number)

    def captions(self, split: str, count: int) -> Iterator[Document]:
        """Yield captioned pictures; an item's meta has all true captions."""
        for _, id, draw in self._each(split, count):
            scene = self._world.scene(draw)
            true = captions(scene)
            meta = {"form": "caption", "captions": true, "pictures": [scene.meta()]}
            yield Document(id, "caption", (self._painter.image(scene, draw), Text(f" {draw.choice(true)}")), meta)

    def questions(self, split: str, count: int) -> Iterator[Document]:
        """Yield question documents in all formats of training."""
        for _, id, draw in self._each(split, count):
            scene = self._world.scene(draw)
            question = one_question(scene, self._world, draw)
            assert question is not None
            yield self._asked(id, scene, question, draw.choice(FORMATS), draw)

    def names(self, split: str, count: int) -> Iterator[Document]:
        """Yield single things by the held-out hand, each asked for by its name."""
        for number, id, draw in self._each(split, count):
            scene = self._alone(self._world.things[number % len(self._world.things)], self._world.new_hand, draw)
            yield self._asked(id, scene, ("name", "What is this?", scene.groups[0].name), FORMATS[0], draw)

    def lines(
        self, split: str, conventions: Sequence[Convention], per_convention: int, *, small: bool = False
    ) -> Iterator[Document]:
        """Yield single things by the hands of training with their lines, equally many for every convention.

        Args:
            split: The split.
            conventions: The conventions.
            per_convention: Number of pictures for each.
            small: Whether a thing is an eighth of the picture's side, among faint shapes, so that it needs resolution.
        """
        world = self._world
        for number, id, draw in self._each(split, per_convention * len(conventions)):
            convention = conventions[number % len(conventions)]
            thing, hand = world.thing(draw), world.hand(draw)
            scene = world.small(thing, hand, draw) if small else self._alone(thing, hand, draw)
            answer = convention.answer(thing)
            meta = {"form": "convention", "convention": convention.name, "new": convention.is_new, "answer": answer}
            parts = (self._painter.image(scene, draw), Text(f" {answer}\n"))
            yield Document(id, "interleaved", parts, {**meta, "pictures": [scene.meta()]})

    def words(self, split: str, words: Sequence[str], pages: int, shots: bool) -> Iterator[Document]:
        """Yield the queries or the shots of pages that bind three held-out words to three things.

        The shots of a page show each thing three times by one hand, its queries by another one. The things of every
        second page are held out themselves.

        Args:
            split: The split.
            words: The held-out words.
            pages: Number of pages.
            shots: Whether the shots are yielded: `SHOTS_PER_PAGE`, else `QUERIES_PER_PAGE`.
        """
        world, per_page = self._world, SHOTS_PER_PAGE if shots else QUERIES_PER_PAGE
        for number, id, draw in self._each(split, pages * per_page):
            page = number // per_page
            of_page = seeded(world.seed, "word page", page)  # equal for queries and shots
            new = page % 2 == 1 and len(world.new_things) >= WORDS_PER_PAGE
            bound = list(
                zip(
                    of_page.sample(world.new_things if new else world.things, WORDS_PER_PAGE),
                    of_page.sample(words, WORDS_PER_PAGE),
                    strict=True,
                )
            )
            for_shots, for_queries = of_page.sample(world.hands, 2)
            thing, word = bound[number % WORDS_PER_PAGE]
            scene = self._alone(thing, for_shots if shots else for_queries, draw)
            meta = {"form": "words", "page": page, "answer": word, "new_things": new}
            parts = (self._painter.image(scene, draw), Text(f" {word}\n"))
            yield Document(id, "interleaved", parts, {**meta, "pictures": [scene.meta()]})

    def scenes(self, split: str, count: int) -> Iterator[Document]:
        """Yield questions on counts, places, presence and kinds, equally many, in pictures of two to eight things."""
        topics: tuple[About, ...] = ("count", "place", "presence", "kind")
        for number, id, draw in self._each(split, count):
            scene, question = self._world.scene(draw, layout="group"), None
            while question is None or not 2 <= sum(group.count for group in scene.groups) <= 8:
                scene = self._world.scene(draw, layout=draw.choice(_SCENES))
                question = one_question(scene, self._world, draw, [topics[number % len(topics)]])
            yield self._asked(id, scene, question, FORMATS[0], draw)

    def find(self, split: str, count: int) -> Iterator[Document]:
        """Yield questions on one thing, an eighth of the picture's side, among faint shapes."""
        for number, id, draw in self._each(split, count):
            thing = self._world.things[number % len(self._world.things)]
            scene = self._world.small(thing, self._world.hand(draw), draw)
            yield self._asked(id, scene, ("name", "What is this?", thing.name), FORMATS[0], draw)

    def read(self, split: str, count: int) -> Iterator[Document]:
        """Yield questions on the word on a card."""
        for _, id, draw in self._each(split, count):
            scene = self._world.scene(draw, layout="card")
            question = one_question(scene, self._world, draw, ["word"])
            assert question is not None
            yield self._asked(id, scene, question, FORMATS[0], draw)

    def new_format(self, split: str, count: int) -> Iterator[Document]:
        """Yield questions of all sorts in the format that is held out."""
        for _, id, draw in self._each(split, count):
            scene = self._world.scene(draw)
            question = one_question(scene, self._world, draw)
            assert question is not None
            yield self._asked(id, scene, question, NEW_FORMAT, draw)

    def _alone(self, thing: Thing, hand: str, draw: random.Random) -> Scene:
        # Faint shapes, since a large thing on a plain background may be a picture of training by chance.
        return self._world.alone(thing, hand, draw, least=0.35, clutter=draw.choice((2, 4)))

    def _asked(self, id: str, scene: Scene, question: Question, form: str, draw: random.Random) -> Document:
        about, asked, answer = question
        meta = {
            "form": "question",
            "format": form,
            "about": about,
            "question": asked,
            "answer": answer,
            "pictures": [scene.meta()],
        }
        prompt = Text(f" {form.format(asked)}", target=False)
        return Document(id, "interleaved", (self._painter.image(scene, draw), prompt, Text(f" {answer}\n")), meta)
