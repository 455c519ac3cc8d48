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

from mm1.data.readers.captions import CaptionReader
from mm1.data.readers.layout import parse_json
from mm1.data.readers.lines import decode
from mm1.data.readers.picture_folder import NOWHERE
from mm1.data.readers.pictures import MAX_PICTURE_BYTES, PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError
from mm1.document import Document

_NOT_META = {"caption", "exif", "key"}


@dataclass(frozen=True)
class WebDataset(CaptionReader):
    """Captioned pictures in tars."""

    suffixes: ClassVar[tuple[str, ...]] = (".tar", ".tar.gz", ".tgz")

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a caption document for every sample of the tars."""
        for file in shard.files:
            name = shard.name(file)
            samples = ((f"{name}/{key}", (key, sample)) for key, sample in _samples(file, name, notes))
            yield from documents_of(samples, self._documents, notes, NOWHERE)

    def _documents(self, keyed: tuple[str, dict[str, bytes]], place: Place) -> list[Document]:
        """Return the documents of a sample: one, or one for every caption of a list."""
        key, sample = keyed
        suffix = next((suffix for suffix in sample if f".{suffix}" in PICTURE_SUFFIXES), None)
        if suffix is None:
            raise LeftOutError("sample without a picture", ", ".join(sample))
        meta = _meta(sample["json"], place) if "json" in sample else {}
        text = decode(sample["txt"], place.notes, place.name) if "txt" in sample else ""
        if not text.strip() and "caption" not in meta:
            raise LeftOutError("sample without a caption")
        address = meta.get("url")
        source = address if isinstance(address, str) else f"{key}.{suffix}"
        kept = {name: value for name, value in meta.items() if name not in _NOT_META}
        captions = text if text.strip() else meta["caption"]
        return self.captioned(sample[suffix], source, captions, place, {**kept, "key": key})


def _meta(content: bytes, place: Place) -> dict[str, Any]:
    try:
        meta = parse_json(content)
    except ValueError:
        meta = None
    if isinstance(meta, dict):
        return meta
    place.change("broken .json beside a picture: taken without it")
    return {}


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
