"""Random crops and mirroring, with Pillow alone."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps

_TRIES = 10


def crop_box(
    width: int, height: int, area: tuple[float, float], ratio: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return the box of a random crop: area uniform, ratio of the sides log-uniform, position uniform.

    The Inception crop ("Going Deeper with Convolutions", arXiv 1409.4842 sec. 6). If ten tries find no box,
    torchvision's rule applies: the largest centred box of an allowed ratio.

    Args:
        width: The picture's width in pixels.
        height: The picture's height in pixels.
        area: Smallest and largest share of the picture's area.
        ratio: Smallest and largest width by height.
        random: The random number generator.

    Returns:
        Left, top, right, bottom in pixels.
    """
    logs = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        pixels, shape = width * height * random.uniform(*area), math.exp(random.uniform(*logs))
        w, h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1))
            return left, top, left + w, top + h
    shape = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, max(1, round(height * shape))), min(height, max(1, round(width / shape)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def augment(
    image: PILImage.Image,
    size: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Crop at random, resize to a square (bicubic), mirror at random.

    Args:
        image: The picture, RGB.
        size: Side of the result in pixels.
        area: See `crop_box`; (1, 1) keeps the whole picture, whatever its ratio.
        ratio: See `crop_box`.
        flip: Probability of mirroring.
        random: The random number generator.

    Returns:
        uint8 array of shape (3, size, size).
    """
    box = None if area == (1.0, 1.0) else crop_box(*image.size, area, ratio, random)
    if box is not None or image.size != (size, size):
        image = image.resize((size, size), PILImage.Resampling.BICUBIC, box=box)
    if flip and random.random() < flip:
        image = ImageOps.mirror(image)
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
