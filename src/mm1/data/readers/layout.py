"""How texts and pictures are laid out as parts: the house's conventions, in one place.

Text after a picture starts with a space; lines of a page end with a line feed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mm1.data.readers.reader import Notes
from mm1.document import Document, Image, Part, Text

_SURROGATES = re.compile("[\ud800-\udfff]")


def caption_parts(picture: Image, caption: str) -> tuple[Part, ...]:
    """Return the parts of a captioned picture: the picture, then a space and the caption."""
    return (picture, Text(f" {caption.strip()}"))


def page_parts(items: Iterable[str | Image], joint: str = "\n") -> tuple[Part, ...]:
    """Return the parts of a page from texts and pictures in reading order.

    Args:
        items: Texts (stripped; empty ones are left out) and pictures.
        joint: What is put between texts that follow one another without a picture.
    """
    parts: list[Part] = []
    texts: list[str] = []

    def flush() -> None:
        if texts:
            space = " " if parts and isinstance(parts[-1], Image) else ""
            parts.append(Text(f"{space}{joint.join(texts)}\n"))
            texts.clear()

    for item in items:
        if isinstance(item, str):
            if item.strip():
                texts.append(item.strip())
        else:
            flush()
            parts.append(item)
    flush()
    return tuple(parts)


def storable(document: Document, notes: Notes) -> Document:
    """Return the document with what Arrow and tokenizers can't take put right, counted under `changed`.

    NULs are removed from texts; lone surrogates become U+FFFD; in meta, values that JSON doesn't have become text or
    null.
    """
    parts: list[Part] = []
    for part in document.parts:
        if isinstance(part, Text):
            parts.append(Text(clean_text(part.text, notes, document.id), part.target))
        else:
            parts.append(replace(part, path=part.path and _SURROGATES.sub("\ufffd", part.path)))
    return Document(
        _SURROGATES.sub("\ufffd", document.id).replace("\x00", "\ufffd"),
        document.kind,
        tuple(parts),
        plain_meta(document.meta),
    )


def clean_text(text: str, notes: Notes, where: str) -> str:
    """Return text without NULs and lone surrogates; count what was changed."""
    where = _SURROGATES.sub("\ufffd", where)
    if "\x00" in text:
        notes.changed.add("NUL characters removed from a text", where)
        text = text.replace("\x00", "")
    text, surrogates = _SURROGATES.subn("\ufffd", text)
    if surrogates:
        notes.changed.add("lone surrogates in a text replaced by U+FFFD", where)
    return text


def plain_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return meta with JSON values only, that Arrow can store."""
    return {_plain(str(key)): _plain(value) for key, value in meta.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return plain_meta(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return _plain(str(value))


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: If it is broken, nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
