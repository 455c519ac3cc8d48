"""A corpus: a directory of documents stored as Arrow, with a `corpus.json` that says where they came from.

    data/scenes/
      corpus.json            name, licence, sources, how it was derived, counts, skips, content hashes
      train/00000.arrow      documents of the split `train`, memory-mapped, random access by row
      heldout/00000.arrow

A corpus is written into a temporary directory beside its final place and renamed when it is complete, so a
directory with a `corpus.json` is always a whole corpus.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm1.document import KINDS, Document, Image, Part, Text
from mm1.errors import UserError
from mm1.files import whole_folder, write_json
from mm1.nearest import did_you_mean, nearest_path
from mm1.places import data_directory
from mm1.version import __version__

TARGET = "learned"
"""Column that says whether a text is a target. The name is older than the word; corpora that are there keep it."""

_PART = pa.struct([("text", pa.string()), ("image", pa.large_binary()), ("path", pa.string()), (TARGET, pa.bool_())])
SCHEMA = pa.schema([("id", pa.string()), ("kind", pa.string()), ("parts", pa.list_(_PART)), ("meta", pa.string())])
"""Columns of the Arrow files."""

_ROWS_PER_BATCH = 200
_ROWS_AT_ONCE = 16  # as Python objects, pictures among them
_BYTES_PER_BATCH = 64 * 2**20  # a batch of large pictures is written before it fills the memory
EXAMPLES_PER_SKIP_REASON = 5


@dataclass
class Skips:
    """What a reader left out: counted by reason, with the first few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count a skipped item, or several of one place, naming it."""
        self.counts[reason] += count
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_PER_SKIP_REASON:
            examples.append(example)

    def as_dict(self) -> dict[str, Any]:
        """Return `{reason: {"count": ..., "examples": [...]}}`."""
        return {r: {"count": n, "examples": self.examples[r]} for r, n in sorted(self.counts.items())}


_dumps = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


def from_row(row: Mapping[str, Any]) -> Document:
    """Return the document of an Arrow row (see `SCHEMA`)."""
    parts: list[Part] = []
    for part in row["parts"]:
        if part["text"] is not None:
            parts.append(Text(part["text"], part[TARGET]))
        else:
            parts.append(Image(part["image"], part["path"]))
    return Document(row["id"], row["kind"], tuple(parts), json.loads(row["meta"]))


class Split:
    """One split of a corpus, opened for reading: a sequence of documents.

    Args:
        directory: The split's directory, such as `data/scenes/train`.

    Raises:
        UserError: If there is no such corpus or split.
    """

    def __init__(self, directory: Path) -> None:
        info_file = directory.parent / "corpus.json"
        if not info_file.is_file():
            raise UserError(
                f"{directory.parent}: no corpus there (no corpus.json): build it with "
                f"`mm1 data build {directory.parent.name}`, or with `mm1 data collect RECIPE` if the recipe says how"
                f"{nearest_path(directory.parent)}"
            )
        corpus = json.loads(info_file.read_text())
        if directory.name not in corpus["splits"]:
            splits = did_you_mean(directory.name, corpus["splits"])
            raise UserError(f"{directory}: the corpus has no split '{directory.name}': {splits}")
        self.directory = directory
        self.corpus: dict[str, Any] = corpus
        self.info: dict[str, Any] = corpus["splits"][directory.name]
        self.content_hash: str = self.info["content_hash"]
        self._table = pa.concat_tables(map(map_documents, sorted(directory.glob("*.arrow"))))
        self._batches: list[pa.RecordBatch] = self._table.to_batches()
        self._starts = list(accumulate((batch.num_rows for batch in self._batches), initial=0))

    def __reduce__(self) -> tuple[type[Split], tuple[Path]]:
        """Travel to other processes as a path, not as a copy of the documents."""
        return Split, (self.directory,)

    @property
    def name(self) -> str:
        """`corpus/split`, as recipes write it."""
        return f"{self.directory.parent.name}/{self.directory.name}"

    @property
    def parts(self) -> pa.ChunkedArray:
        """The parts of all documents as Arrow holds them: for passes over texts that leave pictures unread."""
        return self._table.column("parts")

    def kinds(self) -> np.ndarray:
        """Return the kind of every document: (documents,) strings."""
        return self._table.column("kind").to_numpy()

    def without_pictures(self, start: int, stop: int) -> Iterator[Document]:
        """Yield the documents of a row range; the bytes of their pictures are neither read nor there."""
        table = self._table.slice(start, stop - start)
        for batch in table.select(["id", "kind", "parts", "meta"]).to_batches():
            parts = batch.column("parts").flatten()
            columns = [parts.field(name).to_pylist() for name in ("text", TARGET)]
            made = [Image() if text is None else Text(text, target) for text, target in zip(*columns, strict=True)]
            ends = np.cumsum([0, *(len(row) for row in batch.column("parts"))]).tolist()
            rows = zip(*(batch.column(name).to_pylist() for name in ("id", "kind", "meta")), strict=True)
            for (id, kind, meta), (first, last) in zip(rows, pairwise(ends), strict=True):
                yield Document(id, kind, tuple(made[first:last]), json.loads(meta))

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Document:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = bisect_right(self._starts, index) - 1
        return from_row(self._batches[batch].slice(index - self._starts[batch], 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Document]:
        return (from_row(row) for batch in self._batches for row in _rows(batch))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
        yield from batch.slice(start, _ROWS_AT_ONCE).to_pylist()


def map_documents(file: Path) -> pa.Table:
    """Return the documents of an Arrow file, memory-mapped.

    Opened by Arrow itself: `datasets` takes twenty times as long for a file.

    Raises:
        UserError: If it is damaged.
    """
    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            return stream.read_all()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: the corpus is damaged ({error}): build it again") from error


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
        reference: `scenes/train` (a corpus of the data directory), or a path such as `/my/corpora/news/train`.

    Raises:
        UserError: If there is no such corpus or split, or only a corpus is named.
    """
    path = Path(reference)
    named = data_directory() / reference
    for corpus in (named, path):
        if (corpus / "corpus.json").is_file():
            splits = ", ".join(
                f"{reference.rstrip('/')}/{split}"
                for split in json.loads((corpus / "corpus.json").read_text())["splits"]
            )
            raise UserError(f"{reference}: this is a whole corpus: name one of its splits ({splits})")
    return Split(path if (path.parent / "corpus.json").is_file() and not named.is_dir() else named)


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
        UserError: If two documents of a split share an id, or the disk is full.
    """
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


def document_digest(document: Document) -> bytes:
    """Return 16 bytes that stand for a document's content: id, kind, parts, meta.

    A picture counts by its bytes; where it came from counts only if there are none.
    """
    return _digest(document, _dumps(dict(document.meta)))


def _digest(document: Document, meta: str) -> bytes:
    contents = [(b"i", document.id.encode()), (b"k", document.kind.encode())]
    for part in document.parts:
        if isinstance(part, Text):
            contents.append((b"t" if part.target else b"q", part.text.encode()))
        elif part.data is not None:
            contents.append((b"d", part.data))
        else:
            contents.append((b"p", (part.path or "").encode()))
    contents.append((b"m", meta.encode()))
    # At once: an update of its own for every piece takes twice as long.
    whole = b"".join([piece for mark, one in contents for piece in (mark, len(one).to_bytes(8, "little"), one)])
    return hashlib.blake2b(whole, digest_size=16).digest()


class ShardWriter:
    """Writes documents, in order, to one Arrow file; counts and digests them.

    Args:
        file: The Arrow file; its directory exists.

    Attributes:
        digests: 16 bytes for every document (see `document_digest`), one after another. The hash over the
            digests of a split's shards in order is the split's content hash, however it is cut into shards.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.digests = bytearray()
        self._sink = pa.OSFile(str(file), "wb")
        self._stream = pa.ipc.new_stream(self._sink, SCHEMA)
        self._rows: list[tuple[str, str, str]] = []  # id, kind and meta of documents not written yet
        self._ends = [0]  # of their parts
        self._parts: list[tuple[str | None, bytes | None, str | None, bool]] = []
        self._kinds: Counter[str] = Counter()
        self._images = self._characters = self._pending_bytes = 0
        self._seen: set[str] = set()

    def __contains__(self, document_id: object) -> bool:
        """Whether a document with this id has been written."""
        return document_id in self._seen

    def write(self, document: Document) -> None:
        """Append one document.

        Raises:
            UserError: If its id was written before, or its kind is unknown.
        """
        if document.id in self._seen:
            raise UserError(f"{self.file}: two documents have the id '{document.id}': ids must differ")
        if document.kind not in KINDS:
            raise UserError(f"document '{document.id}': kind '{document.kind}' is none of {', '.join(KINDS)}")
        self._seen.add(document.id)
        meta = _dumps(dict(document.meta))
        self.digests += _digest(document, meta)
        self._kinds[document.kind] += 1
        for part in document.parts:
            if isinstance(part, Text):
                self._parts.append((part.text, None, None, part.target))
                self._characters += len(part.text)
                self._pending_bytes += len(part.text)
            else:
                self._parts.append((None, part.data, part.path, False))
                self._images += 1
                self._pending_bytes += len(part.data or b"")
        self._rows.append((document.id, document.kind, meta))
        self._ends.append(len(self._parts))
        if len(self._rows) >= _ROWS_PER_BATCH or self._pending_bytes >= _BYTES_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:  # by columns, a fourth of the time that rows as dicts take
            ids, kinds, metas = zip(*self._rows, strict=True)
            columns = zip(*self._parts, strict=True) if self._parts else [()] * len(_PART)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, _PART, strict=True)]
            parts = pa.ListArray.from_arrays(self._ends, pa.StructArray.from_arrays(arrays, fields=list(_PART)))
            self._stream.write_batch(pa.RecordBatch.from_arrays([ids, kinds, parts, metas], schema=SCHEMA))
        self._rows, self._ends, self._parts, self._pending_bytes = [], [0], [], 0

    def finish(self) -> dict[str, Any]:
        """Close the file; return the counts of documents, images, characters and kinds."""
        self._flush()
        self._stream.close()
        self._sink.close()
        return {
            "documents": len(self._seen),
            "images": self._images,
            "characters": self._characters,
            "kinds": dict(self._kinds),
        }


def join_files(files: Sequence[Path], target: Path) -> None:
    """Write the documents of Arrow files, which together fit the memory, to one file in the same order."""
    table = pa.concat_tables(map(map_documents, files)).combine_chunks()
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=_ROWS_PER_BATCH)


def content_hash(digests: Iterable[bytes | bytearray]) -> str:
    """Return the content hash of a split from the `ShardWriter.digests` of its shards, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for some in digests:
        digest.update(some)
    return digest.hexdigest()


def _write_split(directory: Path, documents: Iterable[Document]) -> dict[str, Any]:
    directory.mkdir(parents=True)
    writer = ShardWriter(directory / "00000.arrow")
    for document in documents:
        writer.write(document)
    return {**writer.finish(), "content_hash": content_hash([writer.digests])}
