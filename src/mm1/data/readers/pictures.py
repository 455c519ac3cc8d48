"""Pictures on their way into a corpus: only what can be a picture, known from its header, gets in.

Pixels are not decoded here; that is `mm1.processing.images.decode_image`'s, when a sequence is played.
"""

from __future__ import annotations

from mm1.processing import images

PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif",
    ".jp2", ".j2k", ".jpx", ".heic", ".heif", ".hif", ".ppm", ".pgm", ".pbm", ".pnm", ".ico",
)  # fmt: skip
"""Ends of the names of pictures; the bytes decide what one is."""
CAPTION_SUFFIXES = (".txt", ".caption", ".json")
"""Ends of the names of the captions that lie beside pictures, in the order in which they are looked for."""
MAX_PICTURE_BYTES = 256 * 2**20


class PictureError(ValueError):
    """A picture that is left out; the message is the reason that it is counted under."""


def picture_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels from the header.

    Raises:
        PictureError: If the bytes are no picture, or there are more than `MAX_PIXELS` pixels.
    """
    try:
        return images.picture_size(data)
    except images.ImageError as error:
        raise PictureError(str(error)) from None
