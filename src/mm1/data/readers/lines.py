"""JSON Lines and JSON arrays, read one record at a time in bounded memory, damaged records counted."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from mm1.data.readers.layout import parse_json
from mm1.data.readers.reader import Notes

MAX_LINE_BYTES = 64 * 2**20

# What gzip and zipfile raise on damaged input has no common base. RuntimeError: a zip with a password, or packed in a
# way that zipfile doesn't know.
UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)

_CHUNK = 1 << 20


@contextlib.contextmanager
def open_bytes(file: str) -> Iterator[IO[bytes]]:
    """Open a file, unpacked if its name ends in `.gz` or `.zip` (the first member); damage raises `UNREADABLE`."""
    if file.lower().endswith(".gz"):
        with gzip.open(file, "rb") as stream:
            yield cast("IO[bytes]", stream)
    elif file.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            if not archive.infolist():
                raise zipfile.BadZipFile("the archive is empty")
            with archive.open(archive.infolist()[0]) as stream:
                yield stream
    else:
        with open(file, "rb") as stream:
            yield stream


def read_lines(file: str, name: str, notes: Notes) -> Iterator[tuple[int, bytes]]:
    """Yield the number (from 1) and bytes of every line that isn't blank; too long ones and empty files are counted."""
    number = last = 0
    try:
        with open_bytes(file) as stream:
            while line := stream.readline(MAX_LINE_BYTES):
                number += 1
                last = number if line.strip() else last
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    notes.skipped.add(f"line longer than {MAX_LINE_BYTES >> 20} MiB", f"{name}:{number}")
                    while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                elif line.strip():
                    yield number, line
    except UNREADABLE as error:
        notes.skipped.add("damaged file: the rest of it could not be read", f"{name} after line {number} ({error})")
    else:
        if last == 0:
            notes.skipped.add("empty file", name)


def decode(content: bytes, notes: Notes, where: str) -> str:
    """Return text from UTF-8; bytes that aren't are replaced by U+FFFD and counted."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.changed.add("text that is not UTF-8: bad bytes replaced by U+FFFD", where)
        return content.decode("utf-8-sig", "replace")


def read_json_lines(file: str, name: str, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `name:line` and the object of every line; lines that are none are counted."""
    for number, line in read_lines(file, name, notes):
        where = f"{name}:{number}"
        try:
            value = parse_json(decode(line, notes, where))
        except ValueError as error:
            notes.skipped.add("broken JSON line", f"{where} ({error})")
            continue
        if isinstance(value, dict):
            yield where, value
        else:
            notes.skipped.add("JSON line that is no object", where)


def read_json_records(file: str, name: str, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `name:number` and every object of a JSON array, or of JSON Lines if the file isn't an array."""
    try:
        with open_bytes(file) as stream:
            start = stream.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    except UNREADABLE as error:
        notes.skipped.add("damaged file: the rest of it could not be read", f"{name} ({error})")
        return
    if not start.startswith(b"["):
        yield from read_json_lines(file, name, notes)
        return
    number = -1
    try:
        for number, value in enumerate(_array_items(file)):
            if isinstance(value, dict):
                yield f"{name}:{number}", value
            else:
                notes.skipped.add("JSON record that is no object", f"{name}:{number}")
    except (ValueError, *UNREADABLE) as error:
        notes.skipped.add("broken JSON array: the rest of it could not be read", f"{name} after {number} ({error})")


def _array_items(file: str) -> Iterator[Any]:
    """Yield the items of a JSON array without holding more of the file than the longest of them."""
    decoder = json.JSONDecoder()
    with open_bytes(file) as stream:
        # Bytes that aren't UTF-8 become lone surrogates, which are replaced and counted with the document.
        chunks = codecs.iterdecode(iter(lambda: stream.read(_CHUNK), b""), "utf-8-sig", "surrogateescape")
        buffer = next(chunks, "").lstrip().removeprefix("[")
        while True:
            buffer = buffer.lstrip().removeprefix(",").lstrip()
            if buffer.startswith("]"):
                if buffer[1:].strip() or any(chunk.strip() for chunk in chunks):
                    raise ValueError("there is more behind the end of the array")
                return
            try:
                value, end = decoder.raw_decode(buffer)
            except ValueError:
                end = len(buffer)
            if end == len(buffer):  # broken, or not yet whole (a number may go on in the next chunk)
                more = next(chunks, None)
                if more is None or len(buffer) > MAX_LINE_BYTES:
                    raise ValueError("the record is broken or the file is cut off")
                # Twice as much each time, so that a long record isn't parsed from its start too often.
                while len(more) < len(buffer) and (further := next(chunks, None)) is not None:
                    more += further
                buffer += more
                continue
            yield value
            buffer = buffer[end:]
