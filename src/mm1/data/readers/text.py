"""Plain text: JSON Lines or parquet with a column of text, or text files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.lines import UNREADABLE, decode, open_bytes, read_json_records, read_lines
from mm1.data.readers.parquet import read_rows
from mm1.data.readers.reader import Notes, Reader, Shard
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
                rows = read_rows(file, name, [self.column], notes)
            elif file.lower().removesuffix(".gz").removesuffix(".zip").endswith((".jsonl", ".json")):
                rows = read_json_records(file, name, notes)
            else:
                yield from self._text_file(file, name, notes)
                continue
            for where, row in rows:
                document = text_of_row(row, where, self.column, notes)
                if document is not None:
                    yield document

    def _text_file(self, file: str, name: str, notes: Notes) -> Iterator[Document]:
        if self.lines:
            for number, line in read_lines(file, name, notes):
                where = f"{name}:{number}"
                yield Document(where, "text", (Text(decode(line, notes, where).strip()),))
            return
        try:
            with open_bytes(file) as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
        except UNREADABLE as error:
            notes.skipped.add("text file that can't be read", f"{name} ({error})")
            return
        if len(content) > MAX_FILE_BYTES:
            notes.skipped.add(f"text file larger than {MAX_FILE_BYTES >> 20} MiB (read it with lines=true)", name)
        elif not content.strip():
            notes.skipped.add("empty text", name)
        else:
            yield Document(name, "text", (Text(decode(content, notes, name).strip()),))


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
