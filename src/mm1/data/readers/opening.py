"""Files of text as streams of UTF-8: unpacked, archives member by member; what is no text is refused by what it is.

The bytes decide, not the name: `a.jsonl` may be gzip, and `a.txt` a picture.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa

from mm1.data.located import SHORTEST_TEXT, Located, Location
from mm1.data.readers.find import ending, is_hidden
from mm1.data.readers.reader import PACKINGS, Notes
from mm1.data.readers.values import LeftOutError
from mm1.processing.signatures import HEAD_BYTES, bom_encoding, no_text
from mm1.remote.opening import absolute, open_binary

# What the libraries raise on damaged input has no common base. RuntimeError: a zip with a password, or packed in a
# way that zipfile doesn't know.
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError)
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
PARQUET_SUFFIX = ".parquet"

_DAMAGED = "damaged file: the rest of it could not be read"
_UNREAD_MEMBER = "member of an archive that the format doesn't read"
_NONE_OF_IT = "archive without a member that the format reads"
_LAYERS = 4  # of packing, at most: some files unpack to themselves
_CHUNK = 1 << 16
_MOST_REPLACED = 0.2

Takes = Callable[[str], bool]


@dataclass(frozen=True)
class TextStream:
    """A text that is open for reading.

    Attributes:
        name: What to call it: the file, or `archive/member`.
        ending: The end of its name when all packing is taken off, in lower case: `.jsonl`.
        stream: Its bytes, in UTF-8 if they are well-formed.
        file: The file whose bytes these are, from its first on; None if it was unpacked or recoded.
    """

    name: str
    ending: str
    stream: io.BufferedReader
    file: str | None = None

    def located(self, data: bytes, offset: int) -> bytes:
        """Return bytes of the stream with their place in the file, unless they are too short for a located text."""
        if self.file is None or len(data) < SHORTEST_TEXT:
            return data
        return Located(data, Location(absolute(self.file), offset, len(data)))


def open_texts(file: str, name: str, takes: Takes, notes: Notes) -> Iterator[TextStream]:
    """Open the texts that a file holds, one after another: itself, or the members of an archive.

    A file of Parquet is one, whatever its name, if the format takes them: `ending` tells it.

    Reading a stream raises `UNREADABLE` where the packing is damaged.

    Args:
        file: The file.
        name: What to call it.
        takes: Which members of an archive are texts of the format, by their names. A zip's only one always is.
        notes: Where it is counted what is not opened.
    """
    try:
        with cast("io.BufferedReader", open_binary(file, _CHUNK)) as raw:
            if raw.peek(4).startswith(b"PAR1") and takes(PARQUET_SUFFIX):
                yield TextStream(name, PARQUET_SUFFIX, raw)
            else:
                yield from _texts(raw, name, file, takes, notes)
    except UNREADABLE as error:
        notes.skipped.add(why_unreadable(error), f"{name} ({error})")


def unpacked(raw: IO[bytes]) -> io.BufferedReader:
    """Return a file's bytes unpacked, by what they are; damage raises `UNREADABLE`, at once or when they are read."""
    stream = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", raw), _CHUNK)
    for _ in range(_LAYERS):
        head = stream.peek(HEAD_BYTES)
        if not head.startswith(_PACKED_MAGIC):
            break
        unpack = next(unpack for magic, unpack in _PACKED.items() if head.startswith(magic))
        stream = io.BufferedReader(cast("io.RawIOBase", unpack(stream)), _CHUNK)
    return stream


def why_unreadable(error: Exception, damaged: str = _DAMAGED) -> str:
    """Return the reason for one of `UNREADABLE`: what the system says of a file is no damage."""
    return "file that can't be read" if isinstance(error, OSError) and error.errno is not None else damaged


def read_up_to(stream: IO[bytes], limit: int) -> bytes:
    """Return what is left of a stream, up to a limit; room for all that it allows is not taken beforehand."""
    content = stream.read(_CHUNK)
    return content if len(content) < _CHUNK else content + stream.read(limit - _CHUNK)


def decode(content: bytes, notes: Notes, where: str) -> str:
    """Return text from UTF-8, or from the encoding that its byte order mark tells.

    Bytes that aren't text in it are replaced by U+FFFD and counted.

    Raises:
        LeftOutError: If that would be most of it.
    """
    if not content.startswith(codecs.BOM_UTF8):  # the marks of other encodings are no UTF-8
        try:
            return content.decode()
        except UnicodeDecodeError:
            pass
    encoding = bom_encoding(content) or "utf-8"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, "replace")
    replaced = text.count("\ufffd")
    if replaced > 3 and replaced > _MOST_REPLACED * len(text):
        raise LeftOutError("text that is not UTF-8: convert it first (with iconv, say)")
    notes.changed.add("text that is not UTF-8: bad bytes replaced by U+FFFD", where)
    return text


def decode_caption(content: bytes, notes: Notes, where: str) -> str:
    """Return the text of a caption that lies beside a picture (see `decode`).

    Raises:
        LeftOutError: If it is no text.
    """
    other = no_text(content[:HEAD_BYTES])
    if other is not None:
        raise LeftOutError(f"caption that is no text: it is {other}")
    return decode(content, notes, where)


def _texts(
    raw: IO[bytes], name: str, path: str, takes: Takes, notes: Notes, *, inside: bool = False
) -> Iterator[TextStream]:
    stream = unpacked(raw)
    head = stream.peek(HEAD_BYTES)
    if head.startswith((b"PK\3\4", b"PK\5\6")) and not inside:
        yield from _zip_members(stream, name, path, takes, notes)
        return
    if head[257:262] == b"ustar" and not inside:
        yield from _tar_members(stream, name, takes, notes)
        return
    encoding = bom_encoding(head)
    if encoding not in (None, "utf-8-sig"):
        stream = io.BufferedReader(_Recoded(stream, encoding))
        head = stream.peek(HEAD_BYTES)
    end = ending(without_packing(path))
    reason = no_text(head, is_guarded=end in JSON_SUFFIXES)
    if reason is not None:
        notes.skipped.add(f"file that is no text: it is {reason}", name)
        return
    yield TextStream(name, end, stream, path if stream is raw and not inside else None)


def _zip_members(stream: IO[bytes], name: str, path: str, takes: Takes, notes: Notes) -> Iterator[TextStream]:
    with zipfile.ZipFile(stream) as archive:
        members = [info for info in archive.infolist() if not info.is_dir() and not is_hidden(info.filename)]
        if any(info.filename == "[Content_Types].xml" for info in members):
            notes.skipped.add("file that is no text: it is a document of Office (.docx, .xlsx, .pptx)", name)
            return
        if not members:
            raise zipfile.BadZipFile("the archive is empty")
        if len(members) > 1 and not any(takes(info.filename) for info in members):
            notes.skipped.add(_NONE_OF_IT, f"{name} ({members[0].filename}, ...)")
        for info in members:
            label = f"{name}/{info.filename}" if len(members) > 1 else name
            if len(members) > 1 and not takes(info.filename):
                notes.unread.add(_UNREAD_MEMBER, label)
                continue
            try:
                with archive.open(info) as member:
                    inner = info.filename if takes(info.filename) else path
                    yield from _texts(member, label, inner, takes, notes, inside=True)
            except UNREADABLE as error:
                notes.skipped.add(why_unreadable(error), f"{label} ({error})")


def _tar_members(stream: IO[bytes], name: str, takes: Takes, notes: Notes) -> Iterator[TextStream]:
    taken = False
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for info in archive:
            label = f"{name}/{info.name}"
            if not info.isreg() or is_hidden(info.name):
                continue
            if not takes(info.name):
                notes.unread.add(_UNREAD_MEMBER, label)
                continue
            taken = True
            member = cast("IO[bytes]", archive.extractfile(info))
            yield from _texts(member, label, info.name, takes, notes, inside=True)
    if not taken:
        notes.skipped.add(_NONE_OF_IT, name)


def without_packing(name: str) -> str:
    """Return a file's name without the ends that tell how it is packed."""
    while name.lower().endswith(PACKINGS):
        name = os.path.splitext(name)[0]
    return name


def _by_arrow(codec: str) -> Callable[[IO[bytes]], Any]:
    return lambda stream: pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec)


_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _by_arrow("zstd"),
    b"\x04\x22\x4d\x18": _by_arrow("lz4"),
}
_PACKED_MAGIC = tuple(_PACKED)

# Bytes that aren't text in UTF-16 become what isn't in UTF-8 either, so that they are counted where that is decoded.
codecs.register_error("undecodable", lambda error: ("\udcff", cast("UnicodeDecodeError", error).end))


class _Recoded(io.RawIOBase):
    """A stream of UTF-16 or UTF-32 as one of UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("undecodable")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = b"more"
        while not self._ready and chunk:
            chunk = self._stream.read(_CHUNK)
            self._ready = self._decoder.decode(chunk, final=not chunk).encode("utf-8", "surrogatepass")
        taken, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)
