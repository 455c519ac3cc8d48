"""chats: conversations derived from other corpora: names of drawings, questions on shapes, two pictures, plain text.

It needs the corpora openmoji, easy-vqa and text. The conversations can also be about captioned pictures of another
corpus, such as the figures of gimp-help.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping

from mm1.corpora.dialogue import Turn, dialogue, rounds
from mm1.corpora.material import Material
from mm1.corpora.seeded import seeded
from mm1.data.corpus import Split, open_split
from mm1.data.skips import Skips
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.progress import track

Draw = Callable[[random.Random], list[Turn] | None]

_ASKED = ("What is this?", "What does the picture show?", "Name what you see.")
_LANGUAGES = {"de": "German", "es": "Spanish", "fr": "French"}
_QUESTION = re.compile(r"Question: (.*) Short answer:")
_PROSE = 160  # most characters of the beginning of a text, and of its continuation


def build(*, count: int = 6000, captions: str = "", seed: int = 0) -> Material:
    """Return the material of chats: the split `train`.

    Args:
        count: Number of conversations.
        captions: A further split of captioned pictures to talk about, such as `gimp-help/train-captions`.
        seed: The seed of all random choices.
    """
    if count < 1:
        raise UserError(f"option count of corpus chats must be at least 1 (given: {count})")
    splits = {
        name: open_split(name) for name in ("openmoji/train", "easy-vqa/train", "easy-vqa/train-captions", "text/train")
    }
    kinds: dict[str, tuple[float, Draw]] = {
        "names": (3, lambda draw: _names(_any(splits["openmoji/train"], draw), draw)),
        "questions": (3, lambda draw: _questions(_any(splits["easy-vqa/train"], draw), draw)),
        "two pictures": (2, lambda draw: _two_pictures(splits["easy-vqa/train-captions"], draw)),
        "text": (2, lambda draw: _continuation(_any(splits["text/train"], draw))),
    }
    if captions:
        splits[captions] = open_split(captions)
        kinds["captions"] = (2, lambda draw: _caption(_any(splits[captions], draw), draw))
    skips = Skips()
    return Material(
        splits={"train": _chats(kinds, count, seed, skips)},
        licence="; ".join(dict.fromkeys(str(split.corpus["licence"]) for split in splits.values())),
        sources=[f"corpus {name}" for name in splits],
        derived="Conversations are made up around other corpora's pictures, names, questions and texts: the words of "
        "the user are a few fixed phrases and easy-vqa's questions; answers are the names, captions and answers of "
        f"those corpora, or the next words of a text. Kinds: {', '.join(kinds)}.",
        skips=skips,
    )


def _chats(kinds: Mapping[str, tuple[float, Draw]], count: int, seed: int, skips: Skips) -> Iterator[Document]:
    for number in track(range(count), "chats: train"):
        draw = seeded(seed, "chat", number)
        (kind,) = draw.choices(list(kinds), [weight for weight, _ in kinds.values()])
        turns = kinds[kind][1](draw)
        if turns is None:
            skips.add("text too short to go on with", f"train/{number}")
        else:
            yield dialogue(f"train/{number}", turns, kind=kind)


def _any(split: Split, draw: random.Random) -> Document:
    return split[draw.randrange(len(split))]


def _names(document: Document, draw: random.Random) -> list[Turn]:
    """Return a conversation about a drawing's name, often also in another language."""
    pairs = [(draw.choice(_ASKED), str(document.meta["caption"]))]
    known = [code for code in _LANGUAGES if code in document.meta["names"]]
    if known and draw.random() < 0.5:
        code = draw.choice(known)
        pairs.append((f"And in {_LANGUAGES[code]}?", document.meta["names"][code]))
    return rounds(document.images, pairs)


def _questions(document: Document, draw: random.Random) -> list[Turn]:
    """Return a conversation of some of easy-vqa's questions on a picture."""
    texts = [part.text for part in document.parts if isinstance(part, Text)]
    asked = [match[1] for match in map(_QUESTION.search, texts[::2]) if match]
    pairs = list(zip(asked, (text.strip() for text in texts[1::2]), strict=True))
    return rounds(document.images, draw.sample(pairs, min(len(pairs), draw.randint(1, 4))))


def _two_pictures(split: Split, draw: random.Random) -> list[Turn]:
    """Return a conversation about two shapes in one turn: what each is, and whether they share colour or shape."""
    first, second = _any(split, draw), _any(split, draw)
    captions = [str(document.meta["caption"]) for document in (first, second)]
    colours, shapes = zip(*(caption.split()[1:] for caption in captions), strict=True)
    pairs = [
        ("What is in the first picture?", captions[0]),
        ("What is in the second picture?", captions[1]),
        ("Are both of the same color?", "yes" if colours[0] == colours[1] else "no"),
        ("Are both of the same shape?", "yes" if shapes[0] == shapes[1] else "no"),
    ]
    return rounds((*first.images, *second.images), draw.sample(pairs, draw.randint(1, 3)))


def _continuation(document: Document) -> list[Turn] | None:
    """Return a conversation without pictures: the beginning of a text and its continuation; None if it is too short."""
    words = document.text.split()
    beginning = _fitting(words)
    continuation = _fitting(words[len(beginning) :])
    if not beginning or not continuation:
        return None
    return [("user", [f"Go on: {' '.join(beginning)}"]), ("assistant", [" ".join(continuation)])]


def _fitting(words: list[str]) -> list[str]:
    """Return the first words, as many as fit `_PROSE` characters."""
    taken = 0
    while taken < len(words) and len(" ".join(words[: taken + 1])) <= _PROSE:
        taken += 1
    return words[:taken]


def _caption(document: Document, draw: random.Random) -> list[Turn]:
    pictures: tuple[Image, ...] = document.images
    return rounds(pictures, [(draw.choice(_ASKED), document.text.strip())])
