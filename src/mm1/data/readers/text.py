"""Plain text: JSON Lines or parquet with a column of text, or text files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from mm1.data.readers.lines import UNREADABLE, decode, open_bytes, read_json_records, read_lines
from mm1.data.readers.parquet import read_rows
from mm1.data.readers.picture_folder import NOWHERE
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError, text_of, trimmed
from mm1.document import Document, Text

MAX_FILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class PlainText(Reader):
    """Text without pictures; the name of a file tells how it is read.

    Attributes:
        column: Field or column of the text in JSON Lines and parquet.
        lines: Whether every line of a text file is a document; else the file is one.
    """

    suffixes: ClassVar[tuple[str, ...]] = (
        ".txt", ".md", ".txt.gz", ".jsonl", ".jsonl.gz", ".json.gz", ".jsonl.zip", ".parquet",
    )  # fmt: skip
    column: str = "text"
    lines: bool = False

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a text document for every row, line or file."""
        for file in shard.files:
            name = shard.name(file)
            if file.lower().endswith(".parquet"):
                yield from self._of_rows(read_rows(file, name, [self.column], notes), notes)
            elif file.lower().removesuffix(".gz").removesuffix(".zip").endswith((".jsonl", ".json")):
                yield from self._of_rows(read_json_records(file, name, notes), notes)
            else:
                yield from documents_of(self._texts(file, name, notes), _document, notes, NOWHERE)

    def _of_rows(self, rows: Iterable[tuple[str, Mapping[str, Any]]], notes: Notes) -> Iterator[Document]:
        return documents_of(rows, partial(text_of_row, column=self.column), notes, NOWHERE)

    def _texts(self, file: str, name: str, notes: Notes) -> Iterator[tuple[str, str]]:
        """Yield name and text of a file, or of each of its lines."""
        if self.lines:
            for number, line in read_lines(file, name, notes):
                where = f"{name}:{number}"
                yield where, decode(line, notes, where)
            return
        try:
            with open_bytes(file) as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
        except UNREADABLE as error:
            notes.skipped.add("text file that can't be read", f"{name} ({error})")
            return
        if len(content) > MAX_FILE_BYTES:
            notes.skipped.add(f"text file larger than {MAX_FILE_BYTES >> 20} MiB (read it with lines=true)", name)
        else:
            yield name, decode(content, notes, name)


def _document(text: str, place: Place) -> Document:
    return Document(place.name, "text", (Text(trimmed(text)),))


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
    return Document(place.name, "text", (Text(trimmed(text)),), meta)
