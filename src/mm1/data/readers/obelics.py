"""Parquet with the columns of OBELICS: `images`, `texts`, `metadata`, `general_metadata`.

`images` and `texts` are lists of the same length; at every place one of the two is null (arXiv 2306.16527 and its
dataset card). Pictures are bytes, `{"bytes", "path"}`, or paths below the folder of pictures; the original has web
addresses, which are to be fetched first. `metadata` and `general_metadata` are JSON texts; the former is a list with
one entry for every place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.layout import page_parts, parse_json
from mm1.data.readers.parquet import read_rows
from mm1.data.readers.pictures import PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document, Image

COLUMNS = ["images", "texts"]


@dataclass(frozen=True)
class Obelics(Reader):
    """Interleaved pages in parquet.

    Attributes:
        pictures: Folder that paths of pictures are told from; default: the folder of the sources.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    pictures: str = ""

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield an interleaved document for every row."""
        folder = PictureFolder(self.pictures or shard.root)
        for file in shard.files:
            for where, row in read_rows(file, shard.name(file), COLUMNS, notes):
                document = page_of_row(row, where, folder, notes)
                if document is not None:
                    yield document


def page_of_row(row: Mapping[str, Any], where: str, folder: PictureFolder, notes: Notes) -> Document | None:
    """Return the document of a row, or count why there is none and return None."""
    pictures, texts = row["images"], row["texts"]
    if not isinstance(pictures, list) or not isinstance(texts, list) or len(pictures) != len(texts):
        notes.skipped.add("row whose images and texts are not lists of one length", where)
        return None
    details = _json_column(row, "metadata", list, notes, where) or []
    items: list[str | Image] = []
    for place, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        if picture is not None:
            detail = details[place] if place < len(details) and isinstance(details[place], dict) else {}
            address = detail.get("src")
            source = address if isinstance(address, str) else None
            taken = folder.take_value(picture, source, notes, f"{where}[{place}]")
            if taken is not None:
                items.append(taken)
        if isinstance(text, str):
            items.append(text)
        elif text is not None:
            notes.skipped.add("text of another type than text", f"{where}[{place}]")
    parts = page_parts(items)
    if not parts:
        notes.skipped.add("page without text and usable pictures", where)
        return None
    return Document(where, "interleaved", parts, _json_column(row, "general_metadata", dict, notes, where) or {})


def _json_column(row: Mapping[str, Any], column: str, kind: type, notes: Notes, where: str) -> Any:
    value = row.get(column)
    if isinstance(value, (str, bytes)):
        try:
            value = parse_json(value)
        except ValueError:
            value = ()
    if value is not None and not isinstance(value, kind):
        notes.changed.add(f"broken {column}: row taken without it", where)
        return None
    return value
