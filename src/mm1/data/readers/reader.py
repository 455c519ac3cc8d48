"""What every reader shares: source files become shards, a shard becomes documents, and nothing is lost unseen.

A reader is a frozen dataclass: its fields are its options. `shards` says which files are read together (the unit
that is done in one process and, after an interruption, not done again); `read` yields the documents of one shard.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from mm1.data.readers.find import find_files
from mm1.data.skips import Skips
from mm1.document import Document

PACKINGS = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")
"""Ends of the names of packed files; what is inside decides how it is unpacked."""

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
        unread: Files and members of archives among the source files that are none, and aren't read.
        pictures_left_out: Pictures that records name or hold and that were not taken.
        missing: Of the first few pictures without a file: the folder that their path was told from, and the path.
    """

    documents: int = 0
    skipped: Skips = field(default_factory=Skips)
    lost: Skips = field(default_factory=Skips)
    changed: Skips = field(default_factory=Skips)
    unread: Skips = field(default_factory=Skips)
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
        unread: What was found among the files of all shards and isn't read, as `corpus.json` counts it; the first
            shard has it.
        beside: How paths begin at which the reader may keep what should outlive an interruption (`PATH.kept-*`, removed
            when the shard is done); empty: nowhere.
    """

    root: str
    files: tuple[str, ...]
    part: int = 0
    parts: int = 1
    unread: Mapping[str, Any] = field(default_factory=dict)
    beside: str = ""

    def name(self, file: str) -> str:
        """Return the path of a file from the root, with forward slashes: the first half of its documents' ids."""
        below = self.root.rstrip(os.sep) + os.sep
        path = file.removeprefix(below) if file.startswith(below) else os.path.relpath(file, self.root)
        return path.replace(os.sep, "/")


@dataclass(frozen=True)
class Reader(ABC):
    """One format; the options are the fields of the (frozen) dataclass.

    Attributes:
        suffixes: Ends of the names of files that are taken when a pattern names a directory.
        packable: Those of them that may be packed too, as in `.jsonl.gz`.
        beside: Ends of the names of files that source files refer to.
        files_per_shard: How many files are read together.
    """

    suffixes: ClassVar[tuple[str, ...]]
    packable: ClassVar[tuple[str, ...]] = ()
    beside: ClassVar[tuple[str, ...]] = ()
    files_per_shard: ClassVar[int] = 1

    def shards(self, patterns: Sequence[str]) -> list[Shard]:
        """Return the shards of the files that patterns name, in order.

        Args:
            patterns: Files, directories (taken with all below them), globs, and braces as in
                `{00000..00041}.tar` or `{train,val}.jsonl`.

        Raises:
            UserError: If a pattern names nothing.
        """
        found = find_files(patterns, self.choose, " / ".join(self.suffixes))
        starts = range(0, len(found.files), self.files_per_shard)
        shards = [Shard(found.root, tuple(found.files[start : start + self.files_per_shard])) for start in starts]
        return [replace(shards[0], unread=found.unread.as_dict()), *shards[1:]]

    def at_commit(self, patterns: Sequence[str], known: str | None) -> Reader:
        """Return the reader with the commit that it reads, for sources that have commits and unless one is named.

        Args:
            patterns: As of `shards`.
            known: The commit of an earlier job on the same; None: the newest is taken.

        Raises:
            UserError: If the commit can't be found out.
        """
        return self

    def takes(self, name: str) -> bool:
        """Whether a file of this name is a source file, where a directory or an archive is read whole."""
        name = name.lower()
        return name.endswith(self.suffixes) or (
            name.endswith(PACKINGS) and os.path.splitext(name)[0].endswith(self.packable)
        )

    def choose(self, names: list[str]) -> tuple[list[str], dict[str, str]]:
        """Tell source files from others among the files of one folder (see `mm1.data.readers.find.Choose`)."""
        sources = [name for name in names if self.takes(name)]
        others = set(names).difference(sources)
        return sources, {name: "" for name in names if name in others and not name.lower().endswith(self.beside)}

    @abstractmethod
    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield the documents of a shard in source order; count what is left out or changed in `notes`.

        Raises:
            UserError: If the file is not what the format says (a column is missing, say).
        """
