"""Samples of WebDataset tars: members that follow one another and have the same name up to a dot.

As in the library (webdataset/tariterators.py), members whose name begins with a dot, or has none, make no sample.
Memory holds the picture and the captions of one sample.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from tarfile import HeaderError, ReadError
from typing import IO, Any, Literal, Self, cast

from mm1.data.located import Located, Location
from mm1.data.readers.find import is_hidden
from mm1.data.readers.opening import UNREADABLE, unpacked, why_unreadable
from mm1.data.readers.pictures import CAPTION_SUFFIXES, MAX_PICTURE_BYTES, PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes
from mm1.processing.signatures import HEAD_BYTES, what_is
from mm1.remote.opening import absolute, open_binary

_WANTED = {suffix[1:] for suffix in (*PICTURE_SUFFIXES, *CAPTION_SUFFIXES)}
_BUFFER = 1 << 16
_NAMED = 10  # endings of a sample without a picture that its example names


@dataclass
class Sample:
    """A sample of a tar.

    Attributes:
        key: Its name, with the folders in the tar.
        members: Content of the picture and the captions by their endings, in lower case and without a dot.
        endings: Those of the first few members, whatever they are.
    """

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    endings: list[str] = field(default_factory=list)


def read_samples(file: str, name: str, notes: Notes, *, last_dot: bool = False) -> Iterator[Sample]:
    """Yield every sample of a tar, as far as it can be read.

    Args:
        file: The tar, packed or not.
        name: What to call it.
        notes: Where it is counted what is left out.
        last_dot: Whether a key ends at the last dot of a file's name, not at the first.
    """
    sample, dotted = Sample(""), _Dotted()
    for member, content in _members(file, name, notes):
        folder, slash, base = member.removeprefix("./").rpartition("/")
        stem, _, end = base.rpartition(".") if last_dot else base.partition(".")
        key, end = folder + slash + stem, end.lower()
        if key != sample.key or end in sample.endings:
            if sample.endings and not dotted.count_instead_of(sample, notes):
                yield sample
            sample, dotted = Sample(key), _Dotted()
        if content is not None and _is_wanted(end):
            sample.members[end] = content
        elif "." in end and _is_wanted(end.rpartition(".")[2]):
            dotted.add(f"{name}/{folder}{slash}{base.rpartition('.')[0]}")
        if len(sample.endings) < _NAMED or _is_wanted(end):
            sample.endings.append(end)
    if sample.endings and not dotted.count_instead_of(sample, notes):
        yield sample


def _is_wanted(end: str) -> bool:
    return end in _WANTED


@dataclass
class _Dotted:
    """Names with dots that the rule of the first dot makes one sample of: `frame.0001.jpg`, `frame.0002.jpg`, ..."""

    last: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        if name != self.last:
            self.last = name
            self.count += 1
            self.examples = ([*self.examples, name])[:_NAMED]

    def count_instead_of(self, sample: Sample, notes: Notes) -> bool:
        """Count them all, unless the sample has a picture without them; return whether they were counted."""
        if not self.count or any(f".{end}" in PICTURE_SUFFIXES for end in sample.members):
            return False
        reason = "sample whose name has a dot before its ending: read it with key=last-dot"
        for example in self.examples[:-1]:
            notes.skipped.add(reason, example)
        notes.skipped.add(reason, self.examples[-1], self.count - len(self.examples) + 1)
        return True


class _Header(tarfile.TarInfo):
    """A header of a tar; a damaged one isn't taken for the end of the archive, as tarfile takes it."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            kind = type(error).__name__
            tarfile.is_cut_off = kind == "EmptyHeaderError"
            if kind in ("EOFHeaderError", "EmptyHeaderError"):
                raise
            raise ReadError("what comes next is no header of a file") from None


class _Tar(tarfile.TarFile):
    members: list[tarfile.TarInfo]  # kept for random access
    tarinfo = _Header
    is_cut_off = False


def _members(file: str, name: str, notes: Notes) -> Iterator[tuple[str, bytes | None]]:
    """Yield name and content of every member that makes a sample; None instead of what no sample needs."""
    last: str | None = None
    try:
        with open_binary(file, _BUFFER) as raw:
            stream = unpacked(raw)
            other = what_is(stream.peek(HEAD_BYTES))
            if other not in (None, "a tar archive"):
                notes.skipped.add(f"file that is no tar: it is {other}", name)
                return
            mode = cast("Literal['r:']", "r:" if stream.seekable() else "r|")
            with _Tar.open(fileobj=stream, mode=mode, errorlevel=2) as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()
                    last = member.name
                    if is_hidden(last) or member.isdir():
                        continue
                    if not member.isreg():
                        notes.unread.add("tar member that is no file", f"{name}/{last}")
                    elif "." not in last.rpartition("/")[2]:
                        notes.unread.add("tar member whose name has no ending", f"{name}/{last}")
                    elif not _is_wanted(last.rpartition(".")[2].lower()):
                        yield last, None
                    elif member.size > MAX_PICTURE_BYTES:
                        notes.skipped.add(f"tar member larger than {MAX_PICTURE_BYTES >> 20} MiB", f"{name}/{last}")
                    else:
                        content = cast("IO[bytes]", tar.extractfile(member)).read()
                        if stream is raw and f".{last.rpartition('.')[2].lower()}" in PICTURE_SUFFIXES:
                            place = Location(absolute(file), member.offset_data, member.size)
                            content = Located(content, place)
                        yield last, content
                rest = cast("IO[bytes]", tar.fileobj)  # to the end, where gzip checks its sum
                if any(chunk.strip(b"\0") for chunk in iter(lambda: rest.read(1 << 20), b"")):
                    raise ReadError("there is more behind the end of the archive")
                if last is None:
                    notes.skipped.add("tar without a file", name)
                elif tar.is_cut_off:
                    notes.changed.add("tar without an end mark (perhaps cut off): read up to its last member", name)
    except (*UNREADABLE, ValueError, OverflowError) as error:
        after = f"{name} after {last or 'its beginning'} ({error})"
        notes.skipped.add(why_unreadable(error, "damaged tar: the rest of it could not be read"), after)
