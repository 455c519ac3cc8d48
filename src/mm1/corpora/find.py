"""find: questions on small openmoji drawings in a large picture, which need resolution.

At 256 pixels a drawing of 16 pixels is recognisable; scaled to 64 it has four pixels per side. With one drawing per
picture only resolution counts; with more, the model must also look at the place that the question names.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

from PIL import Image as Pillow

from mm1.corpora import sprites
from mm1.corpora.dialogue import dialogue, rounds
from mm1.corpora.material import Material
from mm1.corpora.scene import CODES, NOUNS
from mm1.corpora.seeded import seeded
from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.progress import track

PLACES = ("top left", "top right", "bottom left", "bottom right")


def build(
    *,
    count: int = 6000,
    heldout: int = 500,
    things: int = 1,
    size: int = 256,
    drawing: int = 16,
    nouns: int = 25,
    color: bool = False,
    seed: int = 0,
) -> Material:
    """Return the material of find.

    Splits: `train` (conversations of one or more questions on a picture) and `heldout` (one question per picture).

    Args:
        count: Number of pictures in `train`.
        heldout: Number of pictures in `heldout`.
        things: Drawings per picture, all different, each in a separate quarter.
        size: Side of a picture in pixels.
        drawing: Longer side of a drawing in pixels.
        nouns: Number of different things.
        color: Whether the drawings are coloured, which gives hints even at four pixels; otherwise they are grey, and
            only their shape counts.
        seed: The seed of all random choices.
    """
    if (
        min(count, heldout) < 1
        or not 1 <= things <= len(PLACES)
        or not 4 <= nouns <= len(NOUNS)
        or not 4 <= drawing <= size // 2
        or size > 2048
    ):
        raise UserError(
            f"options of corpus find: set count and heldout to at least 1, things from 1 to {len(PLACES)}, nouns from "
            f"4 to {len(NOUNS)}, drawing from 4 pixels to half of size, and size to at most 2048 (given: "
            f"count={count}, heldout={heldout}, things={things}, nouns={nouns}, drawing={drawing}, size={size})"
        )
    known = NOUNS[:nouns]
    svgs = sprites.read_svgs({CODES[noun] for noun in known})
    drawings = {noun: _small(sprites.cutout(svgs[CODES[noun]], 4 * drawing), drawing) for noun in known}
    if not color:
        drawings = {noun: small.convert("LA").convert("RGBA") for noun, small in drawings.items()}
    return Material(
        splits={
            "train": _chats(drawings, count, "train", things, size, seed),
            "heldout": _chats(drawings, heldout, "heldout", things, size, seed),
        },
        licence=sprites.LICENCE,
        sources=[sprites.SOURCE],
        derived=f"Pictures are made up: on white of {size} pixels, openmoji drawings of {drawing} pixels"
        f"{'' if color else ' in grey'}, {things} of {nouns} in quarters of their own, all different; questions ask "
        "what is in a quarter (with one drawing: what is in the picture).",
    )


def _small(cut: Pillow.Image, longest: int) -> Pillow.Image:
    scale = longest / max(cut.size)
    return cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))), Pillow.Resampling.BOX)


def _chats(
    drawings: dict[str, Pillow.Image], count: int, split: str, things: int, size: int, seed: int
) -> Iterator[Document]:
    for number in track(range(count), f"find: {split}"):
        draw = seeded(seed, split, number)
        places = PLACES if things == len(PLACES) else draw.sample(PLACES, things)
        by_place = dict(zip(places, draw.sample(sorted(drawings), things), strict=True))
        image = Image(_painted({place: drawings[noun] for place, noun in by_place.items()}, size, draw))
        asked = draw.sample(places, draw.randint(1, things) if split == "train" else 1)
        where = "in the picture" if things == 1 else "at the {place}"
        pairs = [(f"What is {where.format(place=place)}?", by_place[place]) for place in asked]
        meta = {"there": by_place, "question": pairs[0][0], "answer": pairs[0][1]}
        yield dialogue(f"{split}/{number}", rounds([image], pairs), **meta)


def _painted(drawings: dict[str, Pillow.Image], size: int, draw: random.Random) -> bytes:
    """Return a PNG with the drawings, each at a random position in its quarter."""
    picture, half = Pillow.new("RGB", (size, size), "white"), size // 2
    for place, drawing in ((PLACES.index(name), drawing) for name, drawing in drawings.items()):
        left = place % 2 * half + draw.randint(0, half - drawing.width)
        top = place // 2 * half + draw.randint(0, half - drawing.height)
        picture.paste(drawing, (left, top), drawing)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
