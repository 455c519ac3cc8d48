"""JSON Lines and JSON arrays, read one record at a time in bounded memory, damaged records counted."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

from mm1.data.located import Located, LocatedText
from mm1.data.readers.layout import first_value, parse_json
from mm1.data.readers.opening import (
    JSON_SUFFIXES,
    UNREADABLE,
    TextStream,
    decode,
    open_texts,
    why_unreadable,
    without_packing,
)
from mm1.data.readers.reader import Notes
from mm1.data.readers.values import LeftOutError

MAX_LINE_BYTES = 64 * 2**20

_CHUNK = 1 << 20
_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_SPREAD_OBJECT = re.compile(rb"\{[^\n]*(?<=[{\[])[ \t\r]*\n[ \t]")  # over indented lines: no JSON Lines
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*\"")
_LONGEST_WORD = 16  # of JSON: `-Infinity`, a character as `\ud83d\ude00`


def read_lines(text: TextStream, notes: Notes) -> Iterator[tuple[str, bytes]]:
    """Yield `name:number` (from 1) and bytes of every line that isn't blank; too long ones and empty files are counted.

    Args:
        text: An open text.
        notes: Where it is counted.
    """
    number = last = end = 0
    try:
        while line := text.stream.readline(MAX_LINE_BYTES):
            number += 1
            start, end = end, end + len(line)
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                notes.skipped.add(f"line longer than {MAX_LINE_BYTES >> 20} MiB", f"{text.name}:{number}")
                while rest := text.stream.readline(MAX_LINE_BYTES):
                    end += len(rest)
                    if rest.endswith(b"\n"):
                        break
                last = number
            elif not line.isspace():
                last = number
                yield f"{text.name}:{number}", text.located(line, start)
    except UNREADABLE as error:
        notes.skipped.add(why_unreadable(error), f"{text.name} after line {number} ({error})")
    else:
        if last == 0:
            notes.skipped.add("empty file", text.name)


def is_json(name: str) -> bool:
    """Whether a file, packed or not, holds JSON by its name."""
    return without_packing(name).lower().endswith(JSON_SUFFIXES)


def begins_as_json(text: TextStream) -> bool:
    """Whether an open text begins as an object, or an array of them, whatever its name."""
    try:
        return _OBJECT.match(text.stream.peek(1)) is not None
    except UNREADABLE:
        return False


def read_json_records(file: str, name: str, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `name:number` and every object of JSON arrays and JSON Lines, in a file or the members of an archive.

    Args:
        file: The file.
        name: What to call it.
        notes: Where it is counted what is left out.
    """
    for text in open_texts(file, name, is_json, notes):
        yield from json_records(text, notes)


def json_records(text: TextStream, notes: Notes, column: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `name:number` and every object of one open text (see `read_json_records`).

    Args:
        text: The open text.
        notes: Where it is counted what is left out.
        column: The field whose texts are located, where they stand in lines of a file.
    """
    try:
        start = text.stream.peek(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
    except UNREADABLE as error:
        notes.skipped.add(why_unreadable(error), f"{text.name} ({error})")
        return
    kind = "array" if start.startswith(b"[") else "object" if _SPREAD_OBJECT.match(start) else None
    if kind is None:
        yield from _of_lines(text, notes, column)
        return
    number = -1
    try:
        for number, value in enumerate(_items(text.stream)):
            if isinstance(value, dict):
                yield f"{text.name}:{number}", value
            else:
                notes.skipped.add("JSON record that is no object", f"{text.name}:{number}")
        if number == -1:
            notes.skipped.add("empty file", text.name)
    except (ValueError, *UNREADABLE) as error:
        reason = f"broken JSON {kind}: the rest of it could not be read"
        notes.skipped.add(reason, f"{text.name} after {number} ({error})")


def _of_lines(text: TextStream, notes: Notes, column: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in read_lines(text, notes):
        try:
            value = parse_json(decode(line, notes, where))
        except LeftOutError as error:
            notes.skipped.add(error.reason, where)
            continue
        except ValueError as error:
            notes.skipped.add("broken JSON line", f"{where} ({error})")
            continue
        if isinstance(value, dict):
            if isinstance(line, Located) and type(value.get(column)) is str:
                value[column] = LocatedText(value[column], replace(line.location, column=json.dumps([column])))
            yield where, value
        else:
            notes.skipped.add("JSON line that is no object", where)


def _items(stream: IO[bytes]) -> Iterator[Any]:
    """Yield the items of a JSON array, or JSON values one after another, holding no more than the longest of them.

    Raises:
        ValueError: If what comes next is broken.
    """
    # Bytes that aren't UTF-8 become lone surrogates, which are replaced and counted with the document.
    chunks = codecs.iterdecode(iter(lambda: stream.read(_CHUNK), b""), "utf-8-sig", "surrogateescape")
    buffer = next(chunks, "")
    place = _end(_SPACE, buffer, 0)
    is_array = buffer.startswith("[", place)
    place += is_array
    while True:
        place = _end(_BETWEEN if is_array else _SPACE, buffer, place)
        if is_array and buffer.startswith("]", place):
            if buffer[place + 1 :].strip() or any(chunk.strip() for chunk in chunks):
                raise ValueError("there is more behind the end of the array")
            return
        try:
            value, end = first_value(buffer, place)
            whole = end < len(buffer) or buffer[end - 1] in '}]"'  # a number may go on in the next chunk
        except json.JSONDecodeError as error:
            broken = len(buffer) - error.pos > _LONGEST_WORD and not error.msg.startswith("Unterminated")
            if broken or len(buffer) - place > MAX_LINE_BYTES:
                raise ValueError(f"{error.msg}: the record is broken") from None
            whole = False
        except RecursionError:
            raise ValueError("the record is nested too deeply") from None
        if whole:
            yield value
            place = end
            continue
        # Twice as much each time, so that a long record isn't parsed from its start too often.
        rest, more = buffer[place:], ""
        while len(more) <= len(rest) and (chunk := next(chunks, None)) is not None:
            more += chunk
        if not more:
            if is_array:
                raise ValueError("the file is cut off")
            if rest:
                yield first_value(rest, 0)[0]
            return
        buffer, place = rest + more, 0


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    match = pattern.match(text, place)
    assert match is not None  # it matches nothing too
    return match.end()
