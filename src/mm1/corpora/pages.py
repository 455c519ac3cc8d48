"""pages: interleaved documents of easy-vqa's pictures; each page follows one convention.

    Here is what we found today.
    [picture] red
    [picture] teal
    [picture] black

Another page says `RED`, `Kreis`, `cercle rouge` or `it is red.` about the same pictures. A model that reads the lines
before predicts the next one better, which is what few-shot ability consists of. Some pages, the albums, have a form
that a picture alone determines: scenes with their captions, or pictures with a question and answer each.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from PIL import Image as Pillow

from mm1.corpora import easy_vqa, sprites
from mm1.corpora.conventions import CONVENTIONS, Convention
from mm1.corpora.material import Material
from mm1.corpora.questions import question_prompt
from mm1.corpora.scene import CODES, Painter, draw_scene
from mm1.corpora.seeded import seeded
from mm1.data.skips import Skips
from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.progress import track

# None of these reveals the convention of its page.
OPENINGS = (
    "Here is what we found today.",
    "A page from our notebook.",
    "Some things that we drew last week.",
    "Look at these pictures, one after another.",
    "We looked at a few pictures and wrote down what we saw.",
    "More of the same.",
    "This page has only pictures on it.",
    "Every picture has its own line.",
)
SHARE_WITH_OPENING = 0.4

# Share of the pictures in easy-vqa's test split that held-out items show; shots show the others.
_SHARE_OF_TEST_FOR_ITEMS = 0.7


@dataclass(frozen=True)
class _Sources:
    """The sources of pages: pictures of one split, and scenes."""

    pictures: Sequence[easy_vqa.Picture]
    painter: Painter
    seed: int


def build(
    *,
    count: int = 4000,
    albums: float = 0.25,
    heldout: int = 600,
    shots: int = 30,
    size: int = 64,
    seed: int = 0,
) -> Material:
    """Return the material of pages.

    Splits: `train` (pages of 2 to 12 pictures), `heldout` (items of one picture and its line, from easy-vqa's test
    split, equally many for every convention) and `shots` (the same form with other pictures, for few-shot prompts with
    the item's convention).

    Args:
        count: Number of pages in `train`.
        albums: Share of the pages that are albums: half with scenes and captions, half with questions.
        heldout: Number of items in `heldout`, rounded down to the same number for every convention.
        shots: Number of items in `shots` for every convention.
        size: Side of the pictures in pixels.
        seed: The seed of all random choices; use the one of scenes, so that albums show no held-out scene.
    """
    if min(count, shots) < 1 or heldout < len(CONVENTIONS) or not 32 <= size <= 1024 or not 0 <= albums <= 1:
        raise UserError(
            f"options of corpus pages: set count and shots to at least 1, heldout to at least {len(CONVENTIONS)}, size "
            f"from 32 to 1024 and albums from 0 to 1 (given: count={count}, shots={shots}, heldout={heldout}, "
            f"size={size}, albums={albums})"
        )
    skips = Skips()
    pictures = {
        split: [_resized(picture, size) for picture in _told(pictures, split, skips)]
        for split, pictures in easy_vqa.read_pictures().items()
    }
    test = seeded(seed, "test").sample(pictures["test"], len(pictures["test"]))
    border = round(len(test) * _SHARE_OF_TEST_FOR_ITEMS)
    if shots > len(test) - border or heldout // len(CONVENTIONS) > border:
        raise UserError(
            f"options of corpus pages: there are {border} pictures for heldout and {len(test) - border} for shots, per "
            f"convention: lower them (given: heldout={heldout}, shots={shots})"
        )
    sources = _Sources(pictures["train"], Painter(sprites.read_svgs(set(CODES.values())), size), seed)
    examples = "; ".join(convention.phrase("red", "circle") for convention in CONVENTIONS)
    return Material(
        splits={
            "train": _pages(sources, count, albums),
            "heldout": _items(test[:border], heldout // len(CONVENTIONS), "heldout"),
            "shots": _items(test[border:], shots, "shots"),
        },
        licence=f"{easy_vqa.LICENCE}; scenes: {sprites.LICENCE}",
        sources=[easy_vqa.SOURCE, sprites.SOURCE],
        derived="Pages are made up: pictures are drawn at random and each is put into words, from its colour and "
        "shape as easy-vqa's answers tell them, by the page's one convention. The conventions, by example: "
        f"{examples}. {albums:.0%} of the pages are albums instead: scenes with captions as in the corpus scenes, "
        "or easy-vqa's pictures each with one of its questions.",
        skips=skips,
    )


def _told(pictures: list[easy_vqa.Picture], split: str, skips: Skips) -> Iterator[easy_vqa.Picture]:
    for picture in pictures:
        if picture.color is None or picture.shape is None:
            skips.add("the answers don't tell color and shape", f"{split}/{picture.number}")
        else:
            yield picture


def _resized(picture: easy_vqa.Picture, size: int) -> easy_vqa.Picture:
    with Pillow.open(io.BytesIO(picture.png)) as image:
        if image.size == (size, size):
            return picture
        out = io.BytesIO()
        image.convert("RGB").resize((size, size), Pillow.Resampling.BICUBIC).save(out, "PNG")
    return replace(picture, png=out.getvalue())


def _pages(sources: _Sources, count: int, albums: float) -> Iterator[Document]:
    for number in track(range(count), "pages: train"):
        draw = seeded(sources.seed, "page", number)
        # Two thirds of the pages have 6 to 12 pictures.
        length = draw.randint(6, 12) if draw.random() < 2 / 3 else draw.randint(2, 5)
        parts: list[Part] = []
        if draw.random() < SHARE_WITH_OPENING:
            parts.append(Text(draw.choice(OPENINGS) + "\n"))
        if draw.random() >= albums:
            convention = draw.choice(CONVENTIONS)
            name = convention.name
            lines = _convention_lines(sources, length, convention, draw)
        elif draw.random() < 0.5:
            name, lines = "album: scenes", _scene_lines(sources, length, draw)
        else:
            name, lines = "album: questions", _question_lines(sources, length, draw)
        for line in lines:
            parts.extend(line)
        yield Document(f"page/{number}", "interleaved", tuple(parts), {"convention": name})


def _convention_lines(
    sources: _Sources, length: int, convention: Convention, draw: random.Random
) -> Iterator[Sequence[Part]]:
    for picture in draw.sample(sources.pictures, min(length, len(sources.pictures))):
        yield Image(picture.png), Text(f" {_answer(picture, convention)}\n")


def _scene_lines(sources: _Sources, length: int, draw: random.Random) -> Iterator[Sequence[Part]]:
    for _ in range(length):
        scene = draw_scene(draw, sources.seed, unseen=False)
        yield Image(sources.painter.paint(scene, draw)), Text(f" {scene.caption}\n")


def _question_lines(sources: _Sources, length: int, draw: random.Random) -> Iterator[Sequence[Part]]:
    for picture in draw.sample(sources.pictures, min(length, len(sources.pictures))):
        question, answer = draw.choice(picture.questions)
        yield Image(picture.png), Text(f" {question_prompt(question)}", target=False), Text(f" {answer}\n")


def _items(pictures: Sequence[easy_vqa.Picture], per_convention: int, split: str) -> Iterator[Document]:
    # The pictures are used in turn, so that conventions get different ones as long as there are enough.
    supply = cycle(pictures)
    for convention in CONVENTIONS:
        for picture in islice(supply, per_convention):
            answer = _answer(picture, convention)
            meta = {"convention": convention.name, "answer": answer, "picture": picture.number}
            parts = (Image(picture.png), Text(f" {answer}\n"))
            yield Document(f"{split}/{convention.name}/{picture.number}", "interleaved", parts, meta)


def _answer(picture: easy_vqa.Picture, convention: Convention) -> str:
    assert picture.color is not None
    assert picture.shape is not None
    return convention.phrase(picture.color, picture.shape)
