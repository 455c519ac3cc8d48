"""scenes: pictures composed of a few dozen openmoji drawings, with exact captions and questions.

    [picture] two large red apples
    [picture] a small dog on the left and three small trees on the right

Scenes differ in things, numbers, positions and sizes; some combinations never occur in training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from mm1.corpora import sprites
from mm1.corpora.material import Material
from mm1.corpora.questions import interview, single_question
from mm1.corpora.scene import CODES, Painter, Scene, draw_question, draw_scene, unseen_combinations
from mm1.corpora.seeded import seeded
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.progress import track


def build(*, count: int = 8000, questions: int = 3000, heldout: int = 500, size: int = 64, seed: int = 0) -> Material:
    """Return the material of scenes.

    Splits: `train` (captions), `train-questions` (a picture and one to four questions), and with combinations that
    these two don't have: `heldout` (captions) and `heldout-questions` (a picture and one question).

    Args:
        count: Number of pictures in `train`.
        questions: Number of pictures in `train-questions`.
        heldout: Number of pictures in each held-out split.
        size: Side of the pictures in pixels.
        seed: The seed of all random choices, including the held-out combinations.
    """
    if min(count, questions, heldout) < 1 or not 32 <= size <= 1024:
        raise UserError(
            "options of corpus scenes: set count, questions and heldout to at least 1 and size from 32 to 1024 "
            f"(given: count={count}, questions={questions}, heldout={heldout}, size={size})"
        )
    painter = Painter(sprites.read_svgs(set(CODES.values())), size)
    return Material(
        splits={
            "train": _captions(painter, count, "train", seed),
            "train-questions": _interviews(painter, questions, "train-questions", seed),
            "heldout": _captions(painter, heldout, "heldout", seed),
            "heldout-questions": _single_questions(painter, heldout, "heldout-questions", seed),
        },
        licence=sprites.LICENCE,
        sources=[sprites.SOURCE],
        derived=f"Scenes are made up: one or two groups of {len(CODES)} openmoji drawings, drawn at "
        "random; captions, questions and answers follow from what was drawn. Every held-out scene has at least one "
        "combination (two things together, or a thing in a number) that no training scene has.",
    )


def _scenes(count: int, split: str, seed: int) -> Iterator[tuple[str, Scene, random.Random]]:
    """Yield (id, scene, generator for further random choices); each depends only on its number and the seed."""
    for number in track(range(count), f"scenes: {split}"):
        draw = seeded(seed, split, number)
        scene = draw_scene(draw, seed, unseen=split.startswith("heldout"))
        yield f"{split}/{number}", scene, draw


def _captions(painter: Painter, count: int, split: str, seed: int) -> Iterator[Document]:
    for id, scene, draw in _scenes(count, split, seed):
        meta = {"caption": scene.caption, **scene.meta(), "unseen": unseen_combinations(scene, seed)}
        yield Document(id, "caption", (Image(painter.paint(scene, draw)), Text(f" {scene.caption}")), meta)


def _interviews(painter: Painter, count: int, split: str, seed: int) -> Iterator[Document]:
    for id, scene, draw in _scenes(count, split, seed):
        # A question may be drawn twice; the document has it once.
        pairs = dict(draw_question(scene, draw) for _ in range(draw.randint(1, 4)))
        yield interview(id, Image(painter.paint(scene, draw)), list(pairs.items()), **scene.meta())


def _single_questions(painter: Painter, count: int, split: str, seed: int) -> Iterator[Document]:
    for id, scene, draw in _scenes(count, split, seed):
        question, answer = draw_question(scene, draw)
        yield single_question(
            id,
            Image(painter.paint(scene, draw)),
            question,
            answer,
            **scene.meta(),
            unseen=unseen_combinations(scene, seed),
        )
