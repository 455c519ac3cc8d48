"""Arrow files of documents: written one document after another, digested, joined."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mm1.data.batches import damaged
from mm1.data.references import References
from mm1.data.schema import LOCATED_PART, PART, schema_of
from mm1.document import KINDS, Document, Text
from mm1.errors import UserError

_ROWS_PER_BATCH = 200
_BYTES_PER_BATCH = 64 * 2**20  # a batch of large pictures is written before it fills the memory

_dumps = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


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
        in_place: The directory that the corpus will have, if it is one by reference: of pictures and texts that lie in
            source files (`mm1.data.located`), the places are written. None: all bytes are.

    Attributes:
        digests: 16 bytes for every document (see `document_digest`), one after another. The hash over the
            digests of a split's shards in order is the split's content hash, however it is cut into shards.
    """

    def __init__(self, file: Path, in_place: Path | None = None) -> None:
        self.file = file
        self._references = None if in_place is None else References(in_place)
        self._part = PART if in_place is None else LOCATED_PART
        self._schema = schema_of(self._part)
        self.digests = bytearray()
        self._sink = pa.OSFile(str(file), "wb")
        self._stream = pa.ipc.new_stream(self._sink, self._schema)
        self._rows: list[tuple[str, str, str]] = []  # id, kind and meta of documents not written yet
        self._ends = [0]  # of their parts
        self._parts: list[tuple[Any, ...]] = []
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
                row: tuple[Any, ...] = (part.text, None, None, part.target)
                self._characters += len(part.text)
            else:
                row = (None, part.data, part.path, False)
                self._images += 1
            if self._references is not None:
                at = self._references.place(part, document.id)
                row = (*row, None) if at is None else (None if row[0] is None else "", None, *row[2:], at)
            self._parts.append(row)
            self._pending_bytes += len(row[0] or row[1] or b"")
        self._rows.append((document.id, document.kind, meta))
        self._ends.append(len(self._parts))
        if len(self._rows) >= _ROWS_PER_BATCH or self._pending_bytes >= _BYTES_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:  # by columns, a fourth of the time that rows as dicts take
            ids, kinds, metas = zip(*self._rows, strict=True)
            columns = zip(*self._parts, strict=True) if self._parts else [()] * len(self._part)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self._part, strict=True)]
            parts = pa.ListArray.from_arrays(self._ends, pa.StructArray.from_arrays(arrays, fields=list(self._part)))
            self._stream.write_batch(pa.RecordBatch.from_arrays([ids, kinds, parts, metas], schema=self._schema))
        self._rows, self._ends, self._parts, self._pending_bytes = [], [0], [], 0

    def finish(self) -> dict[str, Any]:
        """Close the file; return the counts of documents, images, characters and kinds, and of references if any."""
        self._flush()
        self._stream.close()
        self._sink.close()
        return {
            "documents": len(self._seen),
            "images": self._images,
            "characters": self._characters,
            "kinds": dict(self._kinds),
            **({} if self._references is None else self._references.counts()),
        }


def _map_documents(file: Path) -> pa.Table:
    """Return the documents of an Arrow file, memory-mapped.

    Opened by Arrow itself: `datasets` takes twenty times as long for a file.

    Raises:
        UserError: If it is damaged.
    """
    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            return stream.read_all()
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, error) from error


def join_files(files: Sequence[Path], target: Path) -> None:
    """Write the documents of Arrow files, which together fit the memory, to one file in the same order."""
    table = pa.concat_tables(map(_map_documents, files)).combine_chunks()
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=_ROWS_PER_BATCH)


def content_hash(digests: Iterable[bytes | bytearray]) -> str:
    """Return the content hash of a split from the `ShardWriter.digests` of its shards, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for some in digests:
        digest.update(some)
    return digest.hexdigest()
