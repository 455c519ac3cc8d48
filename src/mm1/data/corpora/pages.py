"""pages: interleaved documents made of easy-vqa's pictures; each page keeps one convention throughout.

    Here is what we found today.
    [picture] red
    [picture] teal
    [picture] black

Another page would say `RED`, `Kreis`, `cercle rouge` or `it is red.` of the same pictures. Whoever reads the lines
before predicts the next one better: that is what few-shot ability is made of.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

from PIL import Image as Pillow

from mm1.data.corpora import easy_vqa
from mm1.data.corpora.conventions import CONVENTIONS, Convention
from mm1.data.corpora.material import Material
from mm1.data.corpus import Skips
from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.progress import track

# None of these tells anything about the convention of the page that it opens.
OPENINGS = (
    "Here is what we found today.",
    "A page from our notebook.",
    "Some things that we drew last week.",
    "Look at these pictures, one after another.",
    "We looked at a few pictures and wrote down what we saw.",
    "More of the same.",
    "This page has only a few pictures on it.",
    "Every picture has its own line.",
)
SHARE_WITH_OPENING = 0.4

# The pictures of easy-vqa's test split that held-out items show; the rest is for the shots.
_SHARE_OF_TEST_FOR_ITEMS = 0.7


def build(
    *, count: int = 4000, heldout: int = 600, shots: int = 30, size: int = 64, seed: int = 0
) -> Material:
    """Return the material of pages.

    Splits: `train` (pages of 2 to 12 pictures), `heldout` (one picture and its line each, from easy-vqa's test
    split, equally many for every convention) and `shots` (the same form, other pictures: what few-shot prompts
    with the item's own convention are made of).

    Args:
        count: Pages in `train`.
        heldout: Items in `heldout`, rounded down to equally many for every convention.
        shots: Items in `shots` for every convention.
        size: Side of the pictures in pixels.
        seed: Of everything that is drawn.
    """
    if count < 1 or heldout < len(CONVENTIONS) or shots < 1 or size < 8:
        raise UserError(
            f"pages needs count and shots of at least 1, heldout of at least {len(CONVENTIONS)} and size of at least 8 "
            f"(given: count={count}, shots={shots}, heldout={heldout}, size={size})"
        )
    skips = Skips()
    pictures = {
        split: [_resized(picture, size) for picture in _told(pictures, split, skips)]
        for split, pictures in easy_vqa.read_pictures().items()
    }
    test = random.Random(f"{seed}/test").sample(pictures["test"], len(pictures["test"]))
    border = round(len(test) * _SHARE_OF_TEST_FOR_ITEMS)
    return Material(
        splits={
            "train": _pages(pictures["train"], count, seed),
            "heldout": _items(test[:border], heldout // len(CONVENTIONS), "heldout"),
            "shots": _items(test[border:], shots, "shots"),
        },
        licence=easy_vqa.LICENCE,
        sources=[easy_vqa.SOURCE],
        derived="Pages are made up: pictures are drawn at random and each is put into words from its colour and shape (as "
        f"easy-vqa's answers tell them) by the page's one convention, of {len(CONVENTIONS)}: "
        f"{'; '.join(convention.phrase('red', 'circle') for convention in CONVENTIONS)}.",
        skips=skips,
    )


def _told(pictures: list[easy_vqa.Picture], split: str, skips: Skips) -> Iterator[easy_vqa.Picture]:
    for picture in pictures:
        if picture.color is None or picture.shape is None:
            skips.add("the answers don't tell colour and shape", f"{split}/{picture.number}")
        else:
            yield picture


def _resized(picture: easy_vqa.Picture, size: int) -> easy_vqa.Picture:
    with Pillow.open(io.BytesIO(picture.png)) as image:
        if image.size == (size, size):
            return picture
        out = io.BytesIO()
        image.convert("RGB").resize((size, size), Pillow.Resampling.BICUBIC).save(out, "PNG")
    return easy_vqa.Picture(picture.number, out.getvalue(), picture.questions, picture.color, picture.shape)


def _line(picture: easy_vqa.Picture, convention: Convention) -> tuple[Image, Text, str]:
    assert picture.color is not None and picture.shape is not None
    answer = convention.phrase(picture.color, picture.shape)
    return Image(picture.png), Text(f" {answer}\n"), answer


def _pages(pictures: Sequence[easy_vqa.Picture], count: int, seed: int) -> Iterator[Document]:
    for number in track(range(count), "pages: train"):
        draw = random.Random(f"{seed}/page/{number}")
        convention = draw.choice(CONVENTIONS)
        # Two thirds of the pages have 6 to 12 pictures.
        length = draw.randint(6, 12) if draw.random() < 2 / 3 else draw.randint(2, 5)
        parts: list[Part] = []
        if draw.random() < SHARE_WITH_OPENING:
            parts.append(Text(draw.choice(OPENINGS) + "\n"))
        for picture in draw.sample(pictures, min(length, len(pictures))):
            parts.extend(_line(picture, convention)[:2])
        yield Document(f"page/{number}", "interleaved", tuple(parts), {"convention": convention.name})


def _items(pictures: Sequence[easy_vqa.Picture], per_convention: int, split: str) -> Iterator[Document]:
    # Going round the pictures, every convention gets other ones as long as there are enough.
    supply = cycle(pictures)
    for convention in CONVENTIONS:
        for picture in islice(supply, per_convention):
            image, text, answer = _line(picture, convention)
            meta = {"convention": convention.name, "answer": answer, "picture": picture.number}
            yield Document(f"{split}/{convention.name}/{picture.number}", "interleaved", (image, text), meta)
