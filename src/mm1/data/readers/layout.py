"""How texts and pictures are laid out as parts: the house's conventions, in one place.

Text after a picture starts with a space; lines of a page end with a line feed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mm1.data.readers.reader import Notes
from mm1.data.readers.values import Unreadable, is_plain, is_plain_text, plain_meta, replace_surrogates, trimmed
from mm1.document import Document, Image, Part, Text

_decode = json.JSONDecoder().raw_decode
_LINE_ENDS = ("", "\n", "\r\n")
_SPACE = " \t\r\n"  # of JSON


def caption_parts(picture: Image, caption: str) -> tuple[Part, ...]:
    """Return the parts of a captioned picture: the picture, then a space and the caption."""
    return (picture, Text(f" {caption.strip()}"))


def page_parts(items: Iterable[str | Image], joint: str = "\n") -> tuple[Part, ...]:
    """Return the parts of a page from texts and pictures in reading order.

    Args:
        items: Texts (trimmed; empty ones are left out) and pictures.
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
                texts.append(trimmed(item))
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
    texts = [part.text if isinstance(part, Text) else part.path or "" for part in document.parts]
    if is_plain_text("".join([document.id, *texts])) and (not document.meta or is_plain(document.meta)):
        return document  # as is nearly always so
    where = replace_surrogates(document.id)[0].replace("\x00", "\ufffd")
    parts: list[Part] = []
    for part in document.parts:
        if isinstance(part, Text):
            text = clean_text(part.text, notes, where)
            parts.append(part if text == part.text else Text(text, part.target))
        else:
            path = part.path and replace_surrogates(part.path)[0]
            parts.append(part if path == part.path else replace(part, path=path))
    meta, lost = plain_meta(document.meta)
    for what in lost:
        notes.changed.add("metadata that can't be kept: null in its place", f"{where} ({what})")
    return Document(where, document.kind, tuple(parts), meta)


def clean_text(text: str, notes: Notes, where: str) -> str:
    """Return text without NULs and lone surrogates; count what was changed."""
    if "\x00" in text:
        notes.changed.add("NUL characters removed from a text", where)
        text = text.replace("\x00", "")
    text, surrogates = replace_surrogates(text)
    if surrogates:
        notes.changed.add("lone surrogates in a text replaced by U+FFFD", where)
    return text


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; what `first_value` says of long numbers goes here too.

    Raises:
        ValueError: If it is broken, or nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    start = 0 if text[:1] in ("{", "[") else len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = first_value(text, start)  # a third faster than `json.loads` for a line
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text[end:] not in _LINE_ENDS and text[end:].strip(_SPACE):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def first_value(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value that stands at a place of a text, and where it ends.

    A whole number that Python doesn't read, for its thousands of digits, is `Unreadable`.

    Raises:
        ValueError: If it is broken.
        RecursionError: If it is nested too deeply.
    """
    try:
        return _decode(text, start)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _decode_long(text, start)


def _whole_number(digits: str) -> int | Unreadable:
    try:
        return int(digits)
    except ValueError:
        return Unreadable("number of thousands of digits")


_decode_long = json.JSONDecoder(parse_int=_whole_number).raw_decode
