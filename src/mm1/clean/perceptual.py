"""Difference hashes: the hashes of similar pictures differ in few bits, also in another size or format.

A hash has one bit for every two neighbouring pixels of a small grey copy: whether it gets brighter from left to right
(64 bits, on 9 x 8 pixels) and from top to bottom (64 bits, on 8 x 9). The bits are the same as in `imagehash.dhash` and
`imagehash.dhash_vertical`.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as PILImage

from mm1.processing.images import ImageError, decode_image

# Below this difference between lightest and darkest grey (of 255) a picture is flat; all flat pictures have one hash.
_FLAT = 8


def difference_hash(data: bytes) -> np.ndarray | None:
    """Return the hash of an encoded picture.

    Returns:
        (2,) uint64: left to right, top to bottom; None if the picture can't be decoded or has nearly one grey.
    """
    try:
        grey = decode_image(data, target_size=64).convert("L")
    except ImageError:
        return None
    wide, high = (
        np.asarray(grey.resize(size, PILImage.Resampling.LANCZOS), dtype=np.int16) for size in ((9, 8), (8, 9))
    )
    if int(wide.max()) - int(wide.min()) < _FLAT and int(high.max()) - int(high.min()) < _FLAT:
        return None
    bits = np.stack([(wide[:, 1:] > wide[:, :-1]).ravel(), (high[1:] > high[:-1]).ravel()])
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def nearest(hash_: np.ndarray, others: np.ndarray) -> int:
    """Return the least number of bits in which a hash differs from others.

    Args:
        hash_: (2,) uint64.
        others: (n, 2) uint64.

    Returns:
        0 to 128; 129 if there are no others.
    """
    if len(others) == 0:
        return 129
    return int(np.bitwise_count(others ^ hash_).sum(axis=1).min())
