"""Plain text: JSON Lines or parquet with a column of text, or text files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.lines import JSON_SUFFIXES, json_records, read_lines
from mm1.data.readers.opening import DAMAGED, UNREADABLE, TextStream, decode, open_texts
from mm1.data.readers.parquet import is_parquet, read_rows
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document, Text

MAX_FILE_BYTES = 256 * 2**20

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

    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".md", *JSON_SUFFIXES, ".parquet")
    packable: ClassVar[tuple[str, ...]] = (".txt", ".md", *JSON_SUFFIXES)
    column: str = "text"
    lines: bool = False

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a text document for every row, line or file."""
        for file in shard.files:
            name = shard.name(file)
            if is_parquet(file):
                yield from self._of_rows(read_rows(file, name, [self.column], notes), notes)
                continue
            for text in open_texts(file, name, self.takes, notes):
                if text.ending in JSON_SUFFIXES:
                    yield from self._of_rows(json_records(text, notes), notes)
                elif text.ending in _OTHER_READERS:
                    notes.skipped.add(f"file that is no plain text: {_OTHER_READERS[text.ending]}", text.name)
                elif self.lines:
                    yield from _of_lines(text, notes)
                else:
                    yield from _of_file(text, notes)

    def _of_rows(self, rows: Iterable[tuple[str, Mapping[str, Any]]], notes: Notes) -> Iterator[Document]:
        for where, row in rows:
            document = text_of_row(row, where, self.column, notes)
            if document is not None:
                yield document


def _of_lines(text: TextStream, notes: Notes) -> Iterator[Document]:
    for where, line in read_lines(text, notes):
        content = decode(line, notes, where)
        if content is not None:
            yield Document(where, "text", (Text(content.strip()),))


def _of_file(text: TextStream, notes: Notes) -> Iterator[Document]:
    try:
        content = text.stream.read(MAX_FILE_BYTES + 1)
    except UNREADABLE as error:
        notes.skipped.add(DAMAGED, f"{text.name} ({error})")
        return
    if len(content) > MAX_FILE_BYTES:
        notes.skipped.add(f"text file larger than {MAX_FILE_BYTES >> 20} MiB (read it with lines=true)", text.name)
    elif not content.strip():
        notes.skipped.add("empty text", text.name)
    elif (decoded := decode(content, notes, text.name)) is not None:
        yield Document(text.name, "text", (Text(decoded.strip()),))


def text_of_row(row: Mapping[str, Any], where: str, column: str, notes: Notes) -> Document | None:
    """Return the document of a row, or count why there is none and return None."""
    text = row.get(column)
    if not isinstance(text, str):
        present = ", ".join(os.fsdecode(name) for name in row)[:200]
        notes.skipped.add(f"record without a text '{column}'", f"{where} (it has {present or 'nothing'})")
        return None
    if not text.strip():
        notes.skipped.add("empty text", where)
        return None
    meta = {name: value for name, value in row.items() if name != column and value is not None}
    return Document(where, "text", (Text(text.strip()),), meta)
