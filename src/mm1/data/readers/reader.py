"""What every reader shares: source files become shards, a shard becomes documents, and nothing is lost unseen.

A reader is a frozen dataclass: its fields are its options. `shards` says which files are read together (the unit
that is done in one process and, after an interruption, not done again); `read` yields the documents of one shard.
"""

from __future__ import annotations

import glob
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mm1.data.corpus import Skips
from mm1.document import Document
from mm1.errors import UserError

MISSING_KEPT = 5
"""Paths of missing pictures that a shard remembers, from which a remedy is looked for."""


@dataclass
class Notes:
    """The account of a shard: every record that was read became a document or was left out.

    Attributes:
        documents: Records that became documents.
        skipped: Those left out, by reason. A file, or the rest of one, that can't be read counts as one record.
        lost: Parts that their documents lack, such as pictures of pages.
        changed: What was put right.
        pictures_left_out: Pictures that records name or hold and that were not taken.
        missing: Of the first few pictures without a file: the folder that their path was told from, and the path.
    """

    documents: int = 0
    skipped: Skips = field(default_factory=Skips)
    lost: Skips = field(default_factory=Skips)
    changed: Skips = field(default_factory=Skips)
    pictures_left_out: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Records that were read."""
        return self.documents + sum(self.skipped.counts.values())


@dataclass(frozen=True)
class Shard:
    """Source files that are read together.

    Attributes:
        root: Directory that names are told from.
        files: Their paths, in reading order.
        part: Which part of the source, for sources that are cut by number and not by file.
        parts: How many parts there are.
    """

    root: str
    files: tuple[str, ...]
    part: int = 0
    parts: int = 1

    def name(self, file: str) -> str:
        """Return the path of a file from the root, with forward slashes: the first half of its documents' ids."""
        return Path(os.path.relpath(file, self.root)).as_posix()


@dataclass(frozen=True)
class Reader(ABC):
    """One format; the options are the fields of the (frozen) dataclass.

    Attributes:
        suffixes: Ends of the names of files that are taken when a pattern names a directory.
        files_per_shard: How many files are read together.
    """

    suffixes: ClassVar[tuple[str, ...]]
    files_per_shard: ClassVar[int] = 1

    def shards(self, patterns: Sequence[str]) -> list[Shard]:
        """Return the shards of the files that patterns name, in order.

        Args:
            patterns: Files, directories (taken with all below them), globs, and braces as in
                `{00000..00041}.tar` or `{train,val}.jsonl`.

        Raises:
            UserError: If a pattern names nothing.
        """
        files = find_files(patterns, self.suffixes)
        root = common_directory(files, patterns)
        starts = range(0, len(files), self.files_per_shard)
        return [Shard(root, tuple(files[start : start + self.files_per_shard])) for start in starts]

    @abstractmethod
    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield the documents of a shard in source order; count what is left out or changed in `notes`.

        Raises:
            UserError: If the file is not what the format says (a column is missing, say).
        """


def find_files(patterns: Sequence[str], suffixes: tuple[str, ...]) -> list[str]:
    """Return the files that patterns name, each once, sorted within each pattern (see `Reader.shards`)."""
    if not patterns:
        raise UserError("no source is named: give files, directories or patterns such as 'shards/{00000..00041}.tar'")
    found: dict[str, None] = {}
    for pattern in patterns:
        files: list[str] = []
        for path in (path for plain in expand_braces(pattern) for path in _glob(plain)):
            files += _files_below(path, suffixes) if os.path.isdir(path) else [path]
        found.update(dict.fromkeys(os.path.abspath(file) for file in files))
        if not files:
            raise UserError(
                f"{pattern}: no such file, or no {' / '.join(suffixes)} below it: check the path (and quote patterns)"
            )
    return list(found)


def common_directory(files: Iterable[str], patterns: Sequence[str]) -> str:
    """Return the directory that ids are told from: the one directory that was named, or what all files share."""
    if len(patterns) == 1 and os.path.isdir(patterns[0]):
        return os.path.abspath(patterns[0])
    return os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])


def expand_braces(pattern: str) -> list[str]:
    """Return the patterns that `{a,b}` and `{000..041}` stand for; nothing else is changed.

    >>> expand_braces("{a,b}/{08..10}.tar")
    ['a/08.tar', 'a/09.tar', 'a/10.tar', 'b/08.tar', 'b/09.tar', 'b/10.tar']
    """
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    first, last, names = match.groups()
    if names is not None:
        choices = names.split(",")
    else:
        step = 1 if int(first) <= int(last) else -1
        choices = [str(n).zfill(len(first)) for n in range(int(first), int(last) + step, step)]
    head, tail = pattern[: match.start()], expand_braces(pattern[match.end() :])
    return [head + choice + rest for choice in choices for rest in tail]


def _glob(pattern: str) -> list[str]:
    if os.path.exists(pattern):  # names with brackets are names, not patterns
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True))


def _files_below(directory: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield os.path.join(folder, name)
