"""Pages to look at: a template filled and written whole, pictures put into it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from unicodedata import category

import jinja2
from PIL import Image as Pillow

from mm1.document import Image
from mm1.errors import UserError
from mm1.files import write_text

# What browsers show; the header alone says which it is.
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}


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


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill a template of this package and write the page, complete or not at all.

    Args:
        path: The file to write; replaced if it exists.
        template: Name of the template's file.
        content: What it shows.

    Raises:
        UserError: If the file can't be written.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("mm1.look").joinpath(template).read_text("utf-8")
    page = environment.from_string(source).render(**content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page, shared=True)
    except OSError as error:
        raise UserError(f"{path}: the page can't be written ({error.strerror}): choose another place") from None


def embedded(image: Image) -> dict[str, Any]:
    """Return a picture as a page wants it: `source` (a data URL; None if no browser shows it), `label`, `width`."""
    content = image.read()
    header = read_header(content)
    mime = _MIME.get(header.format or "")
    source = f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}" if mime else None
    # Small pictures are shown up to twice as large: at 64 pixels one would hardly see them.
    width = max(header.width, min(2 * header.width, 96))
    return {"source": source, "label": str(header), "width": width}


def printable(text: str) -> str:
    """Replace control characters, which could otherwise steer the terminal."""
    return "".join("\ufffd" if category(c) == "Cc" and c not in "\n\t" else c for c in text)
