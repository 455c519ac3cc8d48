"""find: four small openmoji drawings in a large picture, and what is where: it needs resolution.

At 256 pixels a drawing of 32 is told by eye; scaled to 64 it has eight pixels a side left.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

from PIL import Image as Pillow

from mm1.data.corpora import sprites
from mm1.data.corpora.dialogue import dialogue, rounds
from mm1.data.corpora.material import Material
from mm1.data.corpora.scene import CODES, NOUNS
from mm1.data.corpora.seeded import seeded
from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.progress import track

PLACES = ("top left", "top right", "bottom left", "bottom right")


def build(
    *, count: int = 4000, heldout: int = 500, size: int = 256, drawing: int = 32, nouns: int = 12, seed: int = 0
) -> Material:
    """Return the material of find.

    Splits: `train` (conversations of one to four questions on a picture) and `heldout` (one question a picture).

    Args:
        count: Pictures in `train`.
        heldout: Pictures in `heldout`.
        size: Side of a picture in pixels.
        drawing: Longer side of a drawing in pixels.
        nouns: How many different things there are.
        seed: Of everything that is drawn.
    """
    if min(count, heldout) < 1 or not 4 <= nouns <= len(NOUNS) or not 4 <= drawing <= size // 2 or size > 2048:
        raise UserError(
            f"find needs count and heldout of at least 1, nouns from 4 to {len(NOUNS)}, drawing from 4 pixels to half "
            f"of size, and size of at most 2048 (given: count={count}, heldout={heldout}, nouns={nouns}, "
            f"drawing={drawing}, size={size})"
        )
    things = NOUNS[:nouns]
    svgs = sprites.read_svgs({CODES[noun] for noun in things})
    drawings = {noun: _small(sprites.cutout(svgs[CODES[noun]], 4 * drawing), drawing) for noun in things}
    return Material(
        splits={
            "train": _chats(drawings, count, "train", size, seed),
            "heldout": _chats(drawings, heldout, "heldout", size, seed),
        },
        licence=sprites.LICENCE,
        sources=[sprites.SOURCE],
        derived=f"Pictures are made up: on white of {size} pixels, one of {nouns} openmoji drawings of {drawing} "
        "pixels somewhere in each quarter, all different; questions ask what is in a quarter.",
    )


def _small(cut: Pillow.Image, longest: int) -> Pillow.Image:
    scale = longest / max(cut.size)
    return cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))), Pillow.Resampling.BOX)


def _chats(drawings: dict[str, Pillow.Image], count: int, split: str, size: int, seed: int) -> Iterator[Document]:
    for number in track(range(count), f"find: {split}"):
        draw = seeded(seed, split, number)
        there = dict(zip(PLACES, draw.sample(sorted(drawings), len(PLACES)), strict=True))
        image = Image(_painted([drawings[noun] for noun in there.values()], size, draw))
        asked = draw.sample(PLACES, draw.randint(1, len(PLACES)) if split == "train" else 1)
        pairs = [(f"What is at the {place}?", there[place]) for place in asked]
        facts = {"there": there, "question": pairs[0][0], "answer": pairs[0][1]}
        yield dialogue(f"{split}/{number}", rounds([image], pairs), **facts)


def _painted(drawings: list[Pillow.Image], size: int, draw: random.Random) -> bytes:
    """Return a PNG with a drawing somewhere in each quarter, in reading order."""
    picture, half = Pillow.new("RGB", (size, size), "white"), size // 2
    for place, drawing in enumerate(drawings):
        left = place % 2 * half + draw.randint(0, half - drawing.width)
        top = place // 2 * half + draw.randint(0, half - drawing.height)
        picture.paste(drawing, (left, top), drawing)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
