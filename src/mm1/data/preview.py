"""Look at documents: the first ones in the terminal, or a self-contained HTML page with the pictures in it.

show_text(open_split("scenes/train"), limit=3)
write_html(open_split("scenes/train"), Path("scenes.html"), title="scenes/train")
"""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any
from unicodedata import category

import jinja2
from PIL import Image as Pillow
from rich.console import Console
from rich.rule import Rule
from rich.text import Text as Styled

from mm1.document import Document, Image, Text
from mm1.errors import UserError

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


def show_text(documents: Iterable[Document], limit: int = 3, console: Console | None = None) -> None:
    """Print the first documents: kind, id, facts, then the parts in order, text that isn't learned dimmed.

    Args:
        documents: A split, or any documents.
        limit: How many are printed at most.
        console: Where to; standard output by default.
    """
    console = console or Console(highlight=False)
    for document in islice(documents, limit):
        console.print(Rule(Styled.assemble((document.kind, "bold cyan"), "  ", printable(document.id)), align="left"))
        body = Styled()
        for part in document.parts:
            if isinstance(part, Text):
                body.append(printable(part.text), style="" if part.learned else "dim")
            else:
                body.append(f"[{read_header(part.read())}]", style="green")
        console.print(body, soft_wrap=True)
        if document.meta:
            console.print(Styled(printable(_facts(document.meta)), style="dim italic"), soft_wrap=True)


def write_html(documents: Iterable[Document], path: Path, title: str, limit: int = 100) -> None:
    """Write one self-contained HTML page that shows documents as they are, pictures included.

    Args:
        documents: A split, or any documents.
        path: The file to write; replaced if it exists.
        title: Heading of the page.
        limit: How many documents are shown at most.

    Raises:
        UserError: If the file can't be written, or a picture's file can't be read.
    """
    shown = [_card(document) for document in islice(documents, limit)]
    write_page(path, "preview.html", title=title, documents=shown)


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
    source = resources.files("mm1.data").joinpath(template).read_text("utf-8")
    page = environment.from_string(source).render(**content)
    partial: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.replace(partial, path)
    except OSError as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        raise UserError(f"{path}: the page can't be written ({error.strerror}): choose another place") from None


def _card(document: Document) -> dict[str, Any]:
    """Return a document as the template wants it."""
    parts = [embedded(part) if isinstance(part, Image) else part for part in document.parts]
    facts = _facts(document.meta, indent=2) if document.meta else None
    return {"id": document.id, "kind": document.kind, "parts": parts, "facts": facts}


def embedded(image: Image) -> dict[str, Any]:
    """Return a picture as a page wants it: `source` (a data URL; None if no browser shows it), `label`, `width`."""
    content = image.read()
    header = read_header(content)
    mime = _MIME.get(header.format or "")
    source = f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}" if mime else None
    # Small pictures are shown up to twice as large: at 64 pixels one would hardly see them.
    width = max(header.width, min(2 * header.width, 96))
    return {"source": source, "label": str(header), "width": width}


def _facts(meta: Any, indent: int | None = None) -> str:
    return json.dumps(dict(meta), ensure_ascii=False, indent=indent)


def printable(text: str) -> str:
    """Replace control characters, which could otherwise steer the terminal."""
    return "".join("\ufffd" if category(c) == "Cc" and c not in "\n\t" else c for c in text)
