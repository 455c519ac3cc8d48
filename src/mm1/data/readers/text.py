"""Plain text: JSON Lines or parquet with a column of text, or text files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from mm1.data.located import located_in, unless_changed
from mm1.data.readers.lines import begins_as_json, json_records, read_lines
from mm1.data.readers.opening import (
    JSON_SUFFIXES,
    PARQUET_SUFFIX,
    UNREADABLE,
    TextStream,
    decode,
    open_texts,
    read_up_to,
    why_unreadable,
)
from mm1.data.readers.parquet import read_rows
from mm1.data.readers.picture_folder import NOWHERE
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError, text_of, trimmed
from mm1.document import Document, Text

MAX_FILE_BYTES = 256 * 2**20

_PROSE = (".txt", ".md")
_TABLE = "a table is read from JSON Lines or Parquet"
_PAGE = "a page is read by the format html"
_OTHER_READERS = {".csv": _TABLE, ".tsv": _TABLE, ".html": _PAGE, ".htm": _PAGE, ".xhtml": _PAGE}


@dataclass(frozen=True)
class PlainText(Reader):
    """Text without pictures; the name of a file tells how it is read.

    Attributes:
        column: Field or column of the text in JSON Lines and parquet.
        lines: Whether every line of a text file is a document; else the file is one.
    """

    suffixes: ClassVar[tuple[str, ...]] = (*_PROSE, *JSON_SUFFIXES, PARQUET_SUFFIX)
    packable: ClassVar[tuple[str, ...]] = (*_PROSE, *JSON_SUFFIXES)
    column: str = "text"
    lines: bool = False

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a text document for every row, line or file."""
        for file in shard.files:
            name = shard.name(file)
            if file.lower().endswith(PARQUET_SUFFIX):  # damaged ones too
                yield from self._of_rows(read_rows(file, name, [self.column], notes, self.column), notes)
                continue
            for text in open_texts(file, name, self.takes, notes):
                if text.ending == PARQUET_SUFFIX:
                    yield from self._of_rows(read_rows(file, name, [self.column], notes, self.column), notes)
                elif text.ending in JSON_SUFFIXES or (text.ending not in _PROSE and begins_as_json(text)):
                    yield from self._of_rows(json_records(text, notes, self.column), notes)
                elif text.ending in _OTHER_READERS:
                    notes.skipped.add(f"file that is no plain text: {_OTHER_READERS[text.ending]}", text.name)
                else:
                    texts = read_lines(text, notes) if self.lines else _whole(text, notes)
                    yield from documents_of(texts, _document, notes, NOWHERE)

    def _of_rows(self, rows: Iterable[tuple[str, Mapping[str, Any]]], notes: Notes) -> Iterator[Document]:
        return documents_of(rows, partial(text_of_row, column=self.column), notes, NOWHERE)


def _whole(text: TextStream, notes: Notes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of an open text, unless it is too large."""
    try:
        content = read_up_to(text.stream, MAX_FILE_BYTES + 1)
    except UNREADABLE as error:
        notes.skipped.add(why_unreadable(error), f"{text.name} ({error})")
        return
    if len(content) > MAX_FILE_BYTES:
        notes.skipped.add(f"text file larger than {MAX_FILE_BYTES >> 20} MiB (read it with lines=true)", text.name)
    else:
        yield text.name, text.located(content, 0)


def _document(content: bytes, place: Place) -> Document:
    text = trimmed(decode(content, place.notes, place.name))
    return Document(place.name, "text", (Text(located_in(text, content)),))


def text_of_row(row: Mapping[str, Any], place: Place, column: str) -> Document:
    """Return the document of a row.

    Raises:
        LeftOutError: If it has no text.
    """
    if column not in row:
        present = ", ".join(map(str, row))[:200]
        raise LeftOutError(f"record without a text '{column}'", f"it has {present or 'nothing'}")
    text = text_of(row[column], "text")
    meta = {name: value for name, value in row.items() if name != column and value is not None}
    return Document(place.name, "text", (Text(unless_changed(trimmed(text), row[column])),), meta)
