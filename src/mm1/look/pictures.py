"""Pictures for people to look at: what their headers tell, small copies, and data URLs for pages."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image as Pillow

from mm1.document import Image
from mm1.errors import UserError
from mm1.processing.images import ImageError, decode_image

_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
"""What browsers show, by Pillow's names of formats."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a picture tell, without decoding it.

    Attributes:
        format: Pillow's name of the format (`PNG`); None if it is no picture.
        width: In pixels.
        height: In pixels.
        length: Encoded size in bytes.
    """

    format: str | None
    width: int
    height: int
    length: int

    @property
    def mime(self) -> str | None:
        """The media type; None if no browser shows it."""
        return _MIME.get(self.format or "")

    def __str__(self) -> str:
        length = f"{self.length / 1024:.1f} KB" if self.length < 2**20 else f"{self.length / 2**20:.1f} MB"
        if self.format is None:
            return f"unreadable image, {length}"
        return f"image {self.width}x{self.height} {self.format} {length}"


def read_header(content: bytes) -> Header:
    """Return what the first bytes of an encoded picture tell; `format` is None if it is no picture."""
    try:
        with Pillow.open(io.BytesIO(content)) as picture:
            return Header(picture.format, picture.width, picture.height, len(content))
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
        return Header(None, 0, 0, len(content))


def data_url(content: bytes, mime: str = "image/png") -> str:
    """Return an encoded picture as a data URL."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def as_png(picture: Pillow.Image) -> bytes:
    """Return decoded pixels as a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def thumbnail(image: Image, side: int) -> bytes:
    """Return a picture as a PNG that is at most `side` pixels wide and high; a small grey one if it is damaged."""
    try:
        picture = decode_image(image.read(), side)
    except (ImageError, UserError):
        picture = Pillow.new("RGB", (8, 8), "grey")
    picture.thumbnail((side, side))
    return as_png(picture)


def embedded(image: Image) -> dict[str, Any]:
    """Return a picture as a page wants it: `source` (a data URL; None if no browser shows it), `label`, `width`."""
    content = image.read()
    header = read_header(content)
    source = data_url(content, header.mime) if header.mime else None
    # Small pictures are shown up to twice as large: at 64 pixels one would hardly see them.
    width = max(header.width, min(2 * header.width, 96))
    return {"source": source, "label": str(header), "width": width}
