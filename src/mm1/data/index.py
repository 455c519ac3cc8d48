"""The index of a corpus split: how many tokens every part of every document has, for one tokenizer.

Kept beside the split as an Arrow file, named by the split's content and the tokenizer's fingerprint, so it
is made once and never stale. A picture's tokens are not counted here (they depend on the connector): its
place is marked with `IMAGE`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from mm1.data.corpus import Split
from mm1.document import Text
from mm1.errors import UserError
from mm1.progress import track

IMAGE = -1
"""Marks a picture among the part lengths."""

_TEXTS_PER_CALL = 2000


@dataclass(frozen=True)
class Index:
    """Part lengths of all documents of a split.

    Attributes:
        parts: (number of parts,) int32: tokens of a text part, or `IMAGE`.
        offsets: (documents + 1,) int64: where each document's parts begin in `parts`.
    """

    parts: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides how text becomes tokens."""
    backend = tokenizer.backend_tokenizer.to_str()
    return hashlib.blake2b(backend.encode(), digest_size=8).hexdigest()


def build_index(split: Split, tokenizer: PreTrainedTokenizerBase) -> Index:
    """Count the tokens of every part; taken from the file beside the split if it is there."""
    name = f"{split.directory.name}-{split.content_hash}-{tokenizer_fingerprint(tokenizer)}.arrow"
    file = split.directory.parent / "index" / name
    if not file.is_file():
        _write(file, _count(split, tokenizer))
    with pa.memory_map(str(file)) as source:
        column = pa.ipc.open_file(source).read_all()["parts"].combine_chunks()
    return Index(column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64))


def _count(split: Split, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
    lengths: list[list[int]] = []
    texts: list[str] = []
    places: list[tuple[int, int]] = []

    def flush() -> None:
        if texts:
            ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            for (document, part), tokens in zip(places, ids, strict=True):
                lengths[document][part] = len(tokens)
        texts.clear()
        places.clear()

    for number, document in enumerate(track(split, f"count tokens of {split.name}", len(split))):
        lengths.append([IMAGE] * len(document.parts))
        for place, part in enumerate(document.parts):
            if isinstance(part, Text):
                texts.append(part.text)
                places.append((number, place))
        if len(texts) >= _TEXTS_PER_CALL:
            flush()
    flush()
    return pa.table({"parts": pa.array(lengths, type=pa.list_(pa.int32()))})


def _write(file: Path, table: pa.Table) -> None:
    partial = file.with_suffix(".partial")
    try:
        file.parent.mkdir(exist_ok=True)
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        partial.rename(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{file}: the index could not be written ({error}): free some space") from error
