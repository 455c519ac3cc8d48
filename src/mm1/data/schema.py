"""The columns of a corpus's Arrow files, and the document of a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mm1.document import Document, Image, Part, Text

TARGET = "learned"
"""Column that says whether a text is a target. The name is older than the word; corpora that are there keep it."""

PART = pa.struct([("text", pa.string()), ("image", pa.large_binary()), ("path", pa.string()), (TARGET, pa.bool_())])
"""Columns of a part: a text, or a picture."""
SCHEMA = pa.schema([("id", pa.string()), ("kind", pa.string()), ("parts", pa.list_(PART)), ("meta", pa.string())])
"""Columns of the Arrow files."""


def from_row(row: Mapping[str, Any]) -> Document:
    """Return the document of an Arrow row (see `SCHEMA`)."""
    parts: list[Part] = []
    for part in row["parts"]:
        if part["text"] is not None:
            parts.append(Text(part["text"], part[TARGET]))
        else:
            parts.append(Image(part["image"], part["path"]))
    return Document(row["id"], row["kind"], tuple(parts), json.loads(row["meta"]))
