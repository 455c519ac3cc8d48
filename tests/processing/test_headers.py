"""What the short way tells of a picture, Pillow tells too."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from mm1.processing import images
from mm1.processing.headers import everyday_size
from mm1.processing.images import ImageError, picture_size

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"progressive": True},
    {"dpi": (72, 72)},
    {"icc_profile": b"x" * 300},
    {"comment": b"x"},
)


def encoded(mode: str, form: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (13, 17, 3), dtype=np.uint8)
    image = PILImage.fromarray(pixels).convert("I" if mode == "I;16" else mode)
    stream = io.BytesIO()
    (image.convert(mode) if mode == "I;16" else image).save(stream, form, **options)
    return stream.getvalue()


JPEGS = [encoded(mode, "JPEG", **options) for mode in ("RGB", "L", "CMYK") for options in OPTIONS]
PNGS = [encoded(mode, "PNG", **options) for mode in ("RGB", "L", "P", "1", "LA", "RGBA", "I;16") for options in OPTIONS]


def by_pillow(data: bytes) -> tuple[int, int] | str:
    try:
        return images._opened(data, lambda image: image.size)
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("data", [*JPEGS, *PNGS])
def test_everyday_pictures_take_the_short_way(data: bytes) -> None:
    assert everyday_size(data) == by_pillow(data) == (17, 13)


def mutated(data: bytes, chance: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(min(len(made), chance.choice((40, 200, 700, 5000))) or 1)
        match chance.randrange(4):
            case 0:
                made[at : at + 1] = bytes([chance.choice((0, 1, 255, 0xD8, 0xDA, 0xC0, 0xDB, chance.randrange(256)))])
            case 1:
                del made[at : at + chance.choice((1, 2, 60))]
            case 2:
                made[at:at] = chance.randbytes(chance.choice((1, 2, 20)))
            case 3:
                del made[at:]
    return bytes(made)


def test_damaged_pictures_are_what_pillow_says_of_them() -> None:
    chance = random.Random(0)
    told = 0
    for _ in range(2000):
        data = mutated(chance.choice([*JPEGS, *PNGS]), chance)
        size = everyday_size(data)
        told += size is not None
        if size is not None and 0 < size[0] * size[1] <= images.MAX_PIXELS:
            assert by_pillow(data) == size, data
    assert told > 200


def test_too_many_pixels() -> None:
    content = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = PNGS[0][:8] + struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content)) + PNGS[0][33:]
    with pytest.raises(ImageError, match="more than 100,000,000 pixels"):
        picture_size(data)
