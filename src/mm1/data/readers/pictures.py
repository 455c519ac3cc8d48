"""Pictures on their way into a corpus: only what can be a picture, known from its header, gets in.

Pixels are not decoded here; that is `mm1.processing.images.decode_image`'s, when a sequence is played.
"""

from __future__ import annotations

import io
import warnings
from functools import cache

from PIL import Image as PILImage

from mm1.processing.images import MAX_PIXELS

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
MAX_PICTURE_BYTES = 256 * 2**20

# Only formats of pixels that Pillow reads by itself: EPS would start another program, for one.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class PictureError(ValueError):
    """A picture that is left out; the message is the reason that it is counted under."""


@cache
def _formats() -> tuple[str, ...]:
    PILImage.init()  # registers the formats, of which a build of Pillow may lack some
    return tuple(format_ for format_ in _FORMATS if format_ in PILImage.OPEN)


def picture_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels from the header.

    Raises:
        PictureError: If the bytes are no picture, or there are more than `MAX_PIXELS` pixels.
    """
    if not data:
        raise PictureError("picture of zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PILImage.open(io.BytesIO(data), formats=_formats()) as picture:
                width, height = picture.size
    except PILImage.DecompressionBombError:
        raise PictureError(f"picture of more than {MAX_PIXELS:,} pixels") from None
    except Exception:  # Pillow's header parsers raise nearly anything on damaged input
        raise PictureError("not a picture, or a damaged one") from None
    if width * height > MAX_PIXELS:
        raise PictureError(f"picture of more than {MAX_PIXELS:,} pixels")
    if width < 1 or height < 1:
        raise PictureError("picture without pixels")
    return width, height
