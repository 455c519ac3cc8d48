"""easy-vqa: 5,000 pictures of one coloured shape each, 48,248 questions, its own test split.

Source: the `easy-vqa` package by Victor Zhou, MIT licence. Captions are derived from the answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mm1.corpora.material import Material
from mm1.corpora.questions import interview, single_question
from mm1.corpora.seeded import seeded
from mm1.data.skips import Skips
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.fetch.pip import fetch_sdist, read_members
from mm1.progress import track

PACKAGE, PACKAGE_VERSION = "easy-vqa", "1.0"
LICENCE = "MIT (easy-vqa, Victor Zhou)"
SOURCE = f"PyPI sdist {PACKAGE} {PACKAGE_VERSION}: easy_vqa/data"

COLORS = ("black", "gray", "red", "green", "blue", "yellow", "teal", "brown")
SHAPES = ("circle", "rectangle", "triangle")

_MEMBER = re.compile(r"easy_vqa/data/(train|test)/(?:images/(\d+)\.png|questions\.json)")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of easy-vqa.

    Attributes:
        number: The picture's number in its split.
        png: The encoded picture, 64x64 RGB.
        questions: Questions and answers about the picture, in the source's order.
        color: One of `COLORS`, if the answers determine it.
        shape: One of `SHAPES`, if the answers determine it.
    """

    number: int
    png: bytes
    questions: tuple[tuple[str, str], ...]
    color: str | None
    shape: str | None


def read_pictures() -> dict[str, list[Picture]]:
    """Download easy-vqa if necessary, and return the pictures of `train` and `test`, in order of their numbers.

    Raises:
        UserError: If the package can't be downloaded or doesn't have the expected content.
    """
    archive = fetch_sdist(PACKAGE, PACKAGE_VERSION)
    images: dict[str, dict[int, bytes]] = {"train": {}, "test": {}}
    questions: dict[str, dict[int, list[tuple[str, str]]]] = {"train": {}, "test": {}}
    for name, content in read_members(archive, lambda name: _MEMBER.fullmatch(name) is not None):
        match = _MEMBER.fullmatch(name)
        assert match is not None
        split, number = match.groups()
        if number is not None:
            images[split][int(number)] = content
            continue
        for question, answer, image in json.loads(content):
            questions[split].setdefault(image, []).append((question, answer))
    if not (images["train"] and images["test"] and questions["train"] and questions["test"]):
        raise UserError(
            f"{archive}: it has no easy_vqa/data with pictures and questions: delete it to download it again"
        )
    return {
        split: [_picture(number, png, asked.get(number, [])) for number, png in sorted(images[split].items())]
        for split, asked in questions.items()
    }


def _picture(number: int, png: bytes, questions: list[tuple[str, str]]) -> Picture:
    return Picture(number, png, tuple(questions), *derive(questions))


def derive(questions: Iterable[tuple[str, str]]) -> tuple[str | None, str | None]:
    """Return the colour and the shape that the answers on one picture determine; None for what they don't.

    They follow from an answer that names one ("what color is the shape?" - "gray"), from the subject of an open
    question ("what color is the triangle?"), and from a positive question answered yes or a negative one answered no
    ("is there not a blue shape?" - "no").
    """
    color = shape = None
    for question, answer in questions:
        words = set(re.findall("[a-z]+", question))
        negative = bool(words & {"not", "no"})
        true_words = words | {answer} if answer not in ("yes", "no") else words
        if (answer == "yes" and negative) or (answer == "no" and not negative):
            continue
        color = next((name for name in COLORS if name in true_words), color)
        shape = next((name for name in SHAPES if name in true_words), shape)
    return color, shape


def build(*, seed: int = 0, questions_per_document: int = 5) -> Material:
    """Return the material of easy-vqa.

    Splits: `train` (a picture followed by several of its questions), `test` (one document per question),
    `train-captions` and `test-captions`.

    Args:
        seed: The seed of the order of the questions about a picture.
        questions_per_document: Most questions in one document; a picture with more questions gets several documents.
    """
    if questions_per_document < 1:
        raise UserError(
            f"option questions_per_document of corpus easy-vqa must be at least 1 (given: {questions_per_document})"
        )
    pictures = read_pictures()
    skips = Skips()
    return Material(
        splits={
            "train": _interviews(pictures["train"], seed, questions_per_document),
            "test": _single_questions(pictures["test"]),
            "train-captions": _captions(pictures["train"], "train", skips),
            "test-captions": _captions(pictures["test"], "test", skips),
        },
        licence=LICENCE,
        sources=[SOURCE],
        derived="Questions, answers and pictures are the source's. Captions (`a red circle`) are derived: colour "
        "and shape of a picture as its own answers tell them; pictures whose answers don't tell both are skipped "
        "there.",
        skips=skips,
    )


def _interviews(pictures: list[Picture], seed: int, most: int) -> Iterator[Document]:
    for picture in track(pictures, "easy-vqa: training questions"):
        asked = list(picture.questions)
        seeded(seed, picture.number).shuffle(asked)
        documents = -(-len(asked) // most)
        for index in range(documents):
            # Each document takes every `documents`-th question, so that they are about equally long.
            yield interview(
                f"train/{picture.number}/{index}",
                Image(picture.png),
                asked[index::documents],
                picture=picture.number,
            )


def _single_questions(pictures: list[Picture]) -> Iterator[Document]:
    for picture in track(pictures, "easy-vqa: test questions"):
        for index, (question, answer) in enumerate(picture.questions):
            yield single_question(
                f"test/{picture.number}/{index}", Image(picture.png), question, answer, picture=picture.number
            )


def _captions(pictures: list[Picture], split: str, skips: Skips) -> Iterator[Document]:
    for picture in pictures:
        id = f"{split}/{picture.number}"
        missing = [name for name in ("color", "shape") if getattr(picture, name) is None]
        if missing:
            skips.add(f"the answers don't tell the {' and the '.join(missing)}", id)
            continue
        meta: Mapping[str, object] = {
            "caption": f"a {picture.color} {picture.shape}",
            "color": picture.color,
            "shape": picture.shape,
            "picture": picture.number,
        }
        yield Document(id, "caption", (Image(picture.png), Text(f" {meta['caption']}")), meta)
