"""A corpus: a directory of documents stored as Arrow, with a `corpus.json` that says where they came from.

    data/scenes/
      corpus.json            name, licence, sources, how it was derived, counts, skips, content hashes
      train/00000.arrow      documents of the split `train`, memory-mapped, random access by row
      train/batches.npy      where in these files which rows are (`mm1.data.batches`)
      heldout/00000.arrow

A corpus is written into a temporary directory beside its final place and renamed when it is complete, so a
directory with a `corpus.json` is always a whole corpus.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm1.data.batches import Batches, damaged, write_batches
from mm1.data.masks import MaskedBatches, open_mask
from mm1.data.place import check_place
from mm1.data.schema import TARGET, from_row, source_path, with_texts
from mm1.data.skips import Skips
from mm1.data.sources import State, check_sources
from mm1.data.writer import ShardWriter, content_hash
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.files import whole_folder, write_json
from mm1.nearest import did_you_mean, nearest_path
from mm1.places import data_directory, is_address
from mm1.remote.folders import local_copy
from mm1.version import __version__

_ROWS_AT_ONCE = 16  # as Python objects, pictures among them


class Split:
    """One split of a corpus, opened for reading: a sequence of documents.

    Args:
        directory: The split's directory, such as `data/scenes/train`.
        mask: Name of a mask (`mm1.data.masks`), whose documents alone are there; None: all are.

    Raises:
        UserError: If there is no such corpus, split or mask, or it is damaged.
    """

    def __init__(self, directory: Path, mask: str | None = None) -> None:
        info_file = directory.parent / "corpus.json"
        if not info_file.is_file():
            raise UserError(
                f"{directory.parent}: no corpus there (no corpus.json): build it with "
                f"`mm1 data build {directory.parent.name}`, or with `mm1 data collect RECIPE` if the recipe says how"
                f"{nearest_path(directory.parent)}"
            )
        corpus = _read_info(info_file)
        if directory.name not in corpus["splits"]:
            splits = did_you_mean(directory.name, corpus["splits"])
            raise UserError(f"{directory}: the corpus has no split '{directory.name}': {splits}")
        self.directory = directory
        self.corpus: dict[str, Any] = corpus
        self.info: dict[str, Any] = corpus["splits"][directory.name]
        self.content_hash: str = self.info["content_hash"]
        self._mask = mask
        self._batches: Batches | MaskedBatches = Batches(directory, self.content_hash)
        if len(self._batches) < self.info["documents"]:
            there = f"its Arrow files have {len(self._batches):,} of {self.info['documents']:,} documents"
            raise damaged(directory, ValueError(there))
        if mask is not None:
            opened = open_mask(directory, mask, self.content_hash, len(self._batches))
            self._batches = MaskedBatches(self._batches, opened)
            self.content_hash = opened.content_hash
            self.info = {**self.info, "documents": len(self), "content_hash": self.content_hash}

    def __reduce__(self) -> tuple[type[Split], tuple[Path, str | None]]:
        """Travel to other processes as a path, not as a copy of the documents."""
        return Split, (self.directory, self._mask)

    @property
    def reference(self) -> str:
        """The split as `open_split` takes it, from any folder."""
        return f"{self.directory.absolute()}{'' if self._mask is None else f'@{self._mask}'}"

    @property
    def name(self) -> str:
        """`corpus/split`, as recipes write it; with a mask `corpus/split@mask`."""
        return f"{self.directory.parent.name}/{self.directory.name}{'' if self._mask is None else f'@{self._mask}'}"

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the documents of a row range as Arrow holds them: for passes over texts that leave pictures unread.

        Texts that lie in source files are filled in; pictures that do have no bytes (see `mm1.data.schema.from_part`).

        Args:
            start: The first row.
            stop: The row after the last; None: all that follow.

        Raises:
            SourceError: If a source file with texts is gone or has changed.
        """
        batches = self._batches.between(start, stop)
        if not self.info.get("located", {}).get("texts"):
            return batches
        return (with_texts(batch, self.directory.parent) for batch in batches)

    @cached_property
    def is_remote(self) -> bool:
        """Whether pictures or texts lie in a store."""
        return any(map(is_address, self.info.get("located", {}).get("files", ())))

    def check_sources(self) -> None:
        """Check that the source files that a corpus by reference refers to are there, as they were.

        Raises:
            SourceError: If one is gone or has changed.
        """
        files = self.info.get("located", {}).get("files", {})
        check_sources({source_path(file, self.directory.parent): State(*state) for file, state in files.items()})

    def without_pictures(self, start: int = 0, stop: int | None = None) -> Iterator[Document]:
        """Yield the documents of a row range; the bytes of their pictures are neither read nor there."""
        return (document for batch in self.batches(start, stop) for document in _without_pictures(batch))

    def row_without_pictures(self, row: int) -> Document:
        """Return a document; the bytes of its pictures are neither read nor there."""
        batch = self._batches.row(row)
        if self.info.get("located", {}).get("texts"):
            batch = with_texts(batch, self.directory.parent)
        return next(_without_pictures(batch))

    def ids(self) -> Iterator[str]:
        """Yield the ids of all documents in order; nothing else of them is read."""
        return (id for batch in self._batches.between() for id in batch.column("id").to_pylist())

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Document:
        return from_row(self.columns(index), self.directory.parent)

    def columns(self, index: int) -> dict[str, Any]:
        """Return a document as Arrow holds it (see `mm1.data.schema`); what lies in source files isn't read.

        Raises:
            IndexError: If there is no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        row: dict[str, Any] = self._batches.row(index).to_pylist()[0]
        return row

    def __iter__(self) -> Iterator[Document]:
        batches = self._batches.between()
        return (from_row(row, self.directory.parent) for batch in batches for row in _rows(batch))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
        yield from batch.slice(start, _ROWS_AT_ONCE).to_pylist()


def _without_pictures(batch: pa.RecordBatch) -> Iterator[Document]:
    parts = batch.column("parts").flatten()
    columns = [parts.field(name).to_pylist() for name in ("text", TARGET)]
    made = [Image() if text is None else Text(text, target) for text, target in zip(*columns, strict=True)]
    ends = np.cumsum([0, *(len(row) for row in batch.column("parts"))]).tolist()
    rows = zip(*(batch.column(name).to_pylist() for name in ("id", "kind", "meta")), strict=True)
    for (id, kind, meta), (first, last) in zip(rows, pairwise(ends), strict=True):
        yield Document(id, kind, tuple(made[first:last]), json.loads(meta))


@lru_cache(maxsize=4)
def _shared(directory: Path, state: tuple[int, int]) -> Split:
    return Split(directory)


def shared_split(directory: Path) -> Split:
    """Open a split, once in this process for all that ask for it, as long as its corpus isn't built anew.

    Raises:
        UserError: See `Split`.
    """
    try:
        state = (directory.parent / "corpus.json").stat()
    except OSError:
        return Split(directory)
    return _shared(directory, (state.st_ino, state.st_mtime_ns))


def open_split(reference: str) -> Split:
    """Open `corpus/split` from the data directory, or the split at a path.

    Args:
        reference: `scenes/train` (a corpus of the data directory), a path such as `/my/corpora/news/train`, or an
            address such as `s3://bucket/corpora/news/train`, which is copied into the cache; each with a mask behind it
            or not, as in `scenes/train@clean`.

    Raises:
        UserError: If there is no such corpus, split or mask, it is damaged, or only a corpus is named.
    """
    mask = None
    if is_address(reference):
        reference, mask = _copied(reference)
        return Split(Path(reference), mask)
    if "@" in Path(reference).name and not any(
        place.is_dir() for place in (data_directory() / reference, Path(reference))
    ):
        reference, _, mask = reference.rpartition("@")
    path = Path(reference)
    named = data_directory() / reference
    for corpus in (named, path):
        if (corpus / "corpus.json").is_file():
            splits = ", ".join(
                f"{reference.rstrip('/')}/{split}" for split in _read_info(corpus / "corpus.json")["splits"]
            )
            raise UserError(f"{reference}: this is a whole corpus: name one of its splits ({splits})")
    return Split(path if (path.parent / "corpus.json").is_file() and not named.is_dir() else named, mask)


def _read_info(file: Path) -> dict[str, Any]:
    """Return the content of a `corpus.json`.

    Raises:
        UserError: If it is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(file, error) from error
    if not isinstance(content, dict) or not isinstance(content.get("splits"), dict):
        raise damaged(file, ValueError("it names no splits"))
    return content


def _copied(reference: str) -> tuple[str, str | None]:
    """Return the directory of this machine of a split at an address, and the mask that is named behind it."""
    address, at, mask = reference.rpartition("@") if "@" in reference.rpartition("/")[2] else (reference, "", "")
    corpus, _, split = address.rstrip("/").rpartition("/")
    copy = local_copy(corpus, lambda name: name == "corpus.json" or name.startswith(f"{split}/"))
    return str(copy / split), mask if at else None


def write_corpus(
    directory: Path,
    splits: Mapping[str, Iterable[Document]],
    *,
    licence: str,
    sources: list[str],
    derived: str | None = None,
    options: Mapping[str, Any] | None = None,
    skips: Skips | None = None,
    changed: Skips | None = None,
) -> dict[str, Any]:
    """Write documents to `directory`, complete or not at all.

    Args:
        directory: Where the corpus is to be; replaced if it exists.
        splits: The documents of each split. Generators are consumed one after another.
        licence: The licence of the material, for people to read.
        sources: Packages, files or addresses that the material came from.
        derived: If documents were made from the sources by a rule, the rule in a sentence or two.
        options: What the builder was asked for (sizes, counts, seed): the same options give the same corpus.
        skips: What was left out; read after all splits are consumed.
        changed: What was put right; read likewise.

    Returns:
        The content of `corpus.json`.

    Raises:
        UserError: If the directory holds something else, two documents of a split share an id, or the disk is full.
    """
    check_place(directory)
    try:
        with whole_folder(directory) as partial:
            info: dict[str, Any] = {
                "name": directory.name,
                "licence": licence,
                "sources": sources,
                "derived": derived,
                "options": dict(options or {}),
                "mm1_version": __version__,
                "splits": {name: _write_split(partial / name, documents) for name, documents in splits.items()},
            }
            info["skipped"] = skips.as_dict() if skips else {}
            info["changed"] = changed.as_dict() if changed else {}
            write_json(partial / "corpus.json", info)
    except OSError as error:
        raise UserError(
            f"{directory}: the corpus could not be written ({error.strerror or error}): free some space or choose "
            "another place with MM1_DATA"
        ) from error
    return info


def _write_split(directory: Path, documents: Iterable[Document]) -> dict[str, Any]:
    directory.mkdir(parents=True)
    writer = ShardWriter(directory / "00000.arrow")
    for document in documents:
        writer.write(document)
    counts = writer.finish()
    write_batches(directory)
    return {**counts, "content_hash": content_hash([writer.digests])}
