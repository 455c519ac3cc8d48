"""WebDataset tars as img2dataset writes them: `000000012.jpg`, `.txt`, `.json` one after another.

Members with the same name up to the first dot of the file name make one sample (the WebDataset convention; the
members of img2dataset 1.4x: github.com/rom1504/img2dataset, writer.py). The caption is the `.txt`, or else the
`caption` of the `.json`.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, ClassVar, cast

from mm1.data.readers.layout import caption_parts, parse_json
from mm1.data.readers.pictures import MAX_PICTURE_BYTES, PICTURE_SUFFIXES, take_picture
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document

_NOT_META = {"caption", "exif", "key"}


@dataclass(frozen=True)
class WebDataset(Reader):
    """Captioned pictures in tars."""

    suffixes: ClassVar[tuple[str, ...]] = (".tar", ".tar.gz", ".tgz")

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a caption document for every sample of the tars."""
        for file in shard.files:
            name = shard.name(file)
            for key, sample in _samples(file, name, notes):
                document = _document(f"{name}/{key}", key, sample, notes)
                if document is not None:
                    yield document


def _document(where: str, key: str, sample: dict[str, bytes], notes: Notes) -> Document | None:
    suffix = next((suffix for suffix in sample if f".{suffix}" in PICTURE_SUFFIXES), None)
    if suffix is None:
        notes.skipped.add("sample without a picture", f"{where} ({', '.join(sample)})")
        return None
    meta: dict[str, Any] = {}
    if "json" in sample:
        try:
            meta = parse_json(sample["json"])
            if not isinstance(meta, dict):
                raise ValueError
        except ValueError:
            notes.changed.add("broken .json beside a picture: taken without it", where)
            meta = {}
    if "txt" in sample:
        caption = sample["txt"].decode("utf-8", "replace")
        if "\ufffd" in caption:
            notes.changed.add("text that is not UTF-8: bad bytes replaced by U+FFFD", where)
    else:
        caption = str(meta.get("caption") or "")
    if not caption.strip():
        notes.skipped.add("sample without a caption", where)
        return None
    address = meta.get("url")
    picture = take_picture(sample[suffix], address if isinstance(address, str) else f"{key}.{suffix}", notes, where)
    if picture is None:
        return None
    kept = {name: value for name, value in meta.items() if name not in _NOT_META}
    return Document(where, "caption", caption_parts(picture, caption), {**kept, "key": key})


def _samples(file: str, name: str, notes: Notes) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and members by suffix of every sample of a tar, as far as it can be read."""
    key: str | None = None
    sample: dict[str, bytes] = {}
    for member, content in _members(file, name, notes):
        path = PurePosixPath(member)
        stem, _, suffix = path.name.partition(".")
        this = str(path.parent / stem)
        if this != key or suffix.lower() in sample:
            if key is not None:
                yield key, sample
            key, sample = this, {}
        sample[suffix.lower()] = content
    if key is not None:
        yield key, sample


def _members(file: str, name: str, notes: Notes) -> Iterator[tuple[str, bytes]]:
    last: str | None = None
    try:
        with _open(file) as stream, tarfile.open(fileobj=stream, mode="r:", errorlevel=2) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all, for random access
                if not member.isreg():
                    if not member.isdir():
                        notes.skipped.add("tar member that is no file", f"{name}/{member.name}")
                elif member.size > MAX_PICTURE_BYTES:
                    notes.skipped.add(f"tar member larger than {MAX_PICTURE_BYTES >> 20} MiB", f"{name}/{member.name}")
                else:
                    content = cast("IO[bytes]", tar.extractfile(member)).read()
                    last = member.name
                    yield member.name, content
            # tarfile takes a damaged header for the end of the archive: look whether it is one. Reading to the end
            # also lets gzip check its sum.
            stream.seek(tar.offset)
            end = stream.read(tarfile.BLOCKSIZE)
            rest = end.strip(b"\0") or any(chunk.strip(b"\0") for chunk in iter(lambda: stream.read(1 << 20), b""))
            if rest:
                raise tarfile.ReadError("what comes next is no header of a file")
            if last is None:
                notes.skipped.add("tar without a file", name)
            elif not end:
                notes.changed.add("tar without an end mark (perhaps cut off): read up to its last member", name)
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError) as error:
        after = f"{name} after {last or 'its beginning'} ({error})"
        notes.skipped.add("damaged tar: the rest of it could not be read", after)


def _open(file: str) -> IO[bytes]:
    stream = open(file, "rb")  # noqa: SIM115 - closed by the caller
    if stream.read(2) == b"\x1f\x8b":
        stream.close()
        return cast("IO[bytes]", gzip.open(file, "rb"))
    stream.seek(0)
    return stream
