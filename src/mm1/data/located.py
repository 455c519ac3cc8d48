"""Bytes and texts that say which place of a source file they were read from.

Readers hand them on; a corpus by reference stores the place in their stead (`mm1.data.references`). They are bytes and
texts like any other: what is cut, joined or decoded of them says nothing of a place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

SHORTEST_TEXT = 1000
"""Characters below which a text isn't located: its place would take about as much room."""


@dataclass(frozen=True, slots=True)
class Location:
    """A place of a source file.

    Attributes:
        file: The file's absolute path, or its address.
        offset: The first byte; of a cell of a parquet file, its row.
        length: The number of bytes.
        column: None: the bytes are the value itself. Else a JSON list of keys and positions that lead to it: from the
            object that the bytes are as JSON, or from the row of a parquet file.
    """

    file: str
    offset: int
    length: int
    column: str | None = None


class Located(bytes):
    """Bytes with their place."""

    location: Location

    def __new__(cls, data: bytes, location: Location) -> Located:
        """Return the bytes with a place."""
        made = super().__new__(cls, data)
        made.location = location
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Located, (bytes(self), self.location)


class LocatedText(str):
    """A text with its place."""

    location: Location

    def __new__(cls, text: str, location: Location) -> LocatedText:
        """Return the text with a place."""
        made = super().__new__(cls, text)
        made.location = location
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return LocatedText, (str.__str__(self), self.location)


def located_in(text: str, whole: bytes) -> str:
    """Return a text with its place in located bytes that hold it as UTF-8; as it is where there is none."""
    if not isinstance(whole, Located) or len(text) < SHORTEST_TEXT:
        return text
    encoded = text.encode("utf-8", "surrogatepass")
    start = whole.find(encoded)
    if start < 0:
        return text
    return LocatedText(text, replace(whole.location, offset=whole.location.offset + start, length=len(encoded)))


def unless_changed(text: str, value: object) -> str:
    """Return a located value that a text was made of if they are equal, else the text."""
    return value if isinstance(value, LocatedText) and value == text else text
