"""The columns of a corpus's Arrow files, and the document of a row."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm1.data.located import Located, LocatedText, Location
from mm1.data.sources import State, read_bytes, read_text
from mm1.document import Document, Image, Part, Text
from mm1.places import is_address

TARGET = "learned"
"""Column that says whether a text is a target. The name is older than the word; corpora that are there keep it."""
AT = "at"
"""Column of a corpus by reference that says in which source file the bytes of a picture, or a text, lie."""

_PART_COLUMNS = [("text", pa.string()), ("image", pa.large_binary()), ("path", pa.string()), (TARGET, pa.bool_())]
_PLACE = [("file", pa.string()), ("size", pa.int64()), ("modified", pa.int64())]
_PLACE += [("offset", pa.int64()), ("length", pa.int64()), ("column", pa.string())]

PART = pa.struct(_PART_COLUMNS)
"""Columns of a part: a text, or a picture."""
LOCATED_PART = pa.struct([*_PART_COLUMNS, (AT, pa.struct(_PLACE))])
"""Those of a part of a corpus by reference. A located picture has neither text nor image, a located text is empty."""


def schema_of(part: pa.StructType) -> pa.Schema:
    """Return the columns of Arrow files with these parts."""
    return pa.schema([("id", pa.string()), ("kind", pa.string()), ("parts", pa.list_(part)), ("meta", pa.string())])


SCHEMA = schema_of(PART)
"""Columns of the Arrow files."""


def from_row(row: Mapping[str, Any], corpus: Path) -> Document:
    """Return the document of an Arrow row.

    Args:
        row: See `SCHEMA`.
        corpus: The corpus's directory, which paths of source files are told from.

    Raises:
        SourceError: If a source file that the row refers to is gone or has changed.
    """
    return document_of(row, [from_part(part, corpus) for part in row["parts"]])


def document_of(row: Mapping[str, Any], parts: Iterable[Part]) -> Document:
    """Return the document of an Arrow row whose parts are there."""
    return Document(row["id"], row["kind"], tuple(parts), json.loads(row["meta"]))


def from_part(part: Mapping[str, Any], corpus: Path) -> Part:
    """Return the part of an Arrow struct; see `from_row`."""
    at = part.get(AT)
    if part["text"] is None:
        return Image(part["image"] if at is None else _picture(at, corpus), part["path"])
    return Text(part["text"] if at is None else located_text(at, corpus), part[TARGET])


def _picture(at: Mapping[str, Any], corpus: Path) -> Located:
    location, state = place_from(at, corpus)
    return Located(read_bytes(location, state), location)


def located_text(at: Mapping[str, Any], corpus: Path) -> LocatedText:
    """Return the text that lies at a place; see `from_row`."""
    location, state = place_from(at, corpus)
    return LocatedText(read_text(location, state), location)


def place_of(location: Location, state: State, corpus: Path) -> dict[str, Any]:
    """Return the Arrow struct of a place: the file's path is told from the corpus if it lies beside it or below."""
    return {
        "file": told_path(location.file, corpus),
        "size": state.size,
        "modified": state.modified,
        "offset": location.offset,
        "length": location.length,
        "column": location.column,
    }


def told_path(file: str, corpus: Path) -> str:
    """Return the path of a source file as a corpus has it: from its directory, if the file lies beside it or below."""
    return os.path.relpath(file, corpus) if file.startswith(os.path.join(corpus.parent, "")) else file


def source_path(told: str, corpus: Path) -> str:
    """Return the path of a source file that a corpus has."""
    return told if is_address(told) else os.path.normpath(os.path.join(corpus, told))


def place_from(at: Mapping[str, Any], corpus: Path) -> tuple[Location, State]:
    """Return the place that an Arrow struct tells."""
    return (
        Location(source_path(at["file"], corpus), at["offset"], at["length"], at["column"]),
        State(at["size"], at["modified"]),
    )


def with_texts(batch: pa.RecordBatch, corpus: Path) -> pa.RecordBatch:
    """Return a batch of a corpus by reference with the texts that lie in source files; see `from_row`."""
    documents = batch.column("parts")
    parts = documents.flatten()
    columns = dict(zip(parts.type.names, parts.flatten(), strict=True))
    texts = columns["text"].to_pylist()
    for number in np.flatnonzero(pc.and_(columns["text"].is_valid(), columns[AT].is_valid())):
        texts[number] = str(located_text(columns[AT][int(number)].as_py(), corpus))
    columns["text"] = pa.array(texts, pa.string())
    filled = pa.StructArray.from_arrays(list(columns.values()), fields=list(parts.type))
    ends = documents.offsets.to_numpy() - documents.offsets[0].as_py()
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), filled)
    return batch.set_column(batch.schema.get_field_index("parts"), batch.schema.field("parts"), lists)
