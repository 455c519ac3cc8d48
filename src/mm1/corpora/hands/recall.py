"""Items without pictures: beginnings of sentences from texts of training, which a model is to end.

So the items tell how much of its text a model keeps while it learns to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mm1.corpora.hands.conventions import letters
from mm1.corpora.hands.english import plural, sentence, with_article
from mm1.corpora.hands.things import Thing
from mm1.corpora.hands.world import World
from mm1.corpora.seeded import seeded
from mm1.document import Document, Text

_ASKED: tuple[tuple[str, Callable[[Thing], str], Callable[[Thing], str]], ...] = (
    ("German", lambda thing: f"In German {with_article(thing.name)} is called", lambda thing: thing.german),
    ("German", lambda thing: f"The German word for {thing.name} is", lambda thing: thing.german),
    ("Spanish", lambda thing: f"In Spanish {with_article(thing.name)} is called", lambda thing: thing.spanish),
    ("French", lambda thing: f"In French {with_article(thing.name)} is called", lambda thing: thing.french),
    ("kind", lambda thing: f"{sentence(thing.plural)} are", lambda thing: plural(thing.kind)),
    ("letters", lambda thing: f"The word {thing.name} has", lambda thing: f"{letters(thing.name)} letters"),
)
"""What an item is about, its beginning, and its end. The sentences are those of `tales.facts`."""


def recall(world: World, count: int, split: str) -> Iterator[Document]:
    """Yield items; an item's meta has `context` and `answer`.

    Args:
        world: The world.
        count: Most items; there are six for every thing.
        split: The split, by whose name their order is drawn.
    """
    asked = [(thing, *of) for thing in world.things for of in _ASKED]
    seeded(world.seed, split).shuffle(asked)
    for number, (thing, about, beginning, ending) in enumerate(asked[:count]):
        context, answer = beginning(thing), ending(thing)
        parts = (Text(context, target=False), Text(f" {answer}"))
        meta = {"form": "recall", "about": about, "context": context, "answer": answer}
        yield Document(f"{split}/{number}", "text", parts, meta)
