"""Texts without pictures, which teach a decoder the names, kinds and words before it sees anything."""

from __future__ import annotations

from collections.abc import Iterator

from mm1.corpora.hands.tales import facts, tale
from mm1.corpora.hands.world import World
from mm1.corpora.seeded import seeded
from mm1.document import Document, Text
from mm1.progress import track


def texts(world: World, count: int, split: str) -> Iterator[Document]:
    """Yield texts: some facts on a thing of training and tales about it and another one.

    Args:
        world: The world.
        count: Number of texts.
        split: The split, by whose name and the text's number everything is drawn.
    """
    for number in track(range(count), f"hands: {split}"):
        draw = seeded(world.seed, split, number)
        thing = world.things[number % len(world.things)]
        others = [world.thing(draw, but=[thing]) for _ in range(draw.randint(1, 3))]
        sentences = draw.sample(facts(thing), draw.randint(3, 6))
        tales = [tale(thing, other, draw) for other in others]
        parts = [" ".join(sentences), *tales] if draw.random() < 0.5 else [*tales, " ".join(sentences)]
        meta = {"form": "facts and tales", "things": [thing.name, *(other.name for other in others)]}
        yield Document(f"{split}/{number}", "text", (Text("\n".join(parts) + "\n"),), meta)
