"""Pictures for display: their headers, small copies, and data URLs for pages."""

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
"""Formats that browsers show: Pillow's name -> media type."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an encoded picture.

    Attributes:
        format: Pillow's name of the format (`PNG`); None if the content is not a picture.
        width: Width in pixels.
        height: Height in pixels.
        length: Encoded size in bytes.
    """

    format: str | None
    width: int
    height: int
    length: int

    @property
    def mime(self) -> str | None:
        """The media type; None if browsers don't show the format."""
        return _MIME.get(self.format or "")

    def __str__(self) -> str:
        length = f"{self.length / 1024:.1f} KB" if self.length < 2**20 else f"{self.length / 2**20:.1f} MB"
        if self.format is None:
            return f"unreadable picture, {length}"
        return f"picture {self.width}x{self.height} {self.format} {length}"


def read_header(content: bytes) -> Header:
    """Return the header of an encoded picture, without decoding it; `format` is None if it is not a picture."""
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
    """Return a picture as a PNG of at most `side` pixels in width and height; a small grey one if it is damaged."""
    try:
        picture = decode_image(image.read(), side)
    except (ImageError, UserError):
        picture = Pillow.new("RGB", (8, 8), "grey")
    picture.thumbnail((side, side))
    return as_png(picture)


def embedded(image: Image) -> dict[str, Any]:
    """Return a picture's values for a page: `source` (a data URL; None if browsers don't show it), `label`, `width`."""
    content = image.read()
    header = read_header(content)
    source = data_url(content, header.mime) if header.mime else None
    # Small pictures are shown up to twice as large, since 64 pixels are hardly visible.
    width = max(header.width, min(2 * header.width, 96))
    return {"source": source, "label": str(header), "width": width}
