"""The documents of a split that an encoder can be trained on, kept beside the split's index.

    index --documents of one picture--> index/train-CONTENT-TOKENIZER-4/pictures-TOKENS-1/*.npy

The arrays are memory-mapped, so every rank opens them at once.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from mm1.data.corpus import Split
from mm1.errors import UserError
from mm1.files import whole_folder, write_json
from mm1.plan.arrays import ArrayWriter, map_array, read_values
from mm1.plan.index import IMAGE, build_index, index_folder
from mm1.plan.lengths import Index
from mm1.plan.packing import document_sums

_VERSION = 1  # of the rule and of the files
_FILES = {"rows": np.int64, "parts": np.int32, "offsets": np.int64, "target": np.bool_}
_COUNTS = "counts.json"
_DOCUMENTS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Pictures:
    """The documents of a split that an encoder can be trained on.

    Attributes:
        rows: (n,) int64 rows of these documents in the split.
        index: The index of these documents: a picture and its caption each, with the number of kept tokens.
        left_out: Number of other documents, by reason.
        cut: Number of captions that are cut.
    """

    rows: np.ndarray
    index: Index
    left_out: dict[str, int]
    cut: int


def select_pictures(split: Split, tokenizer: PreTrainedTokenizerBase, max_tokens: int, captions: bool) -> Pictures:
    """Select the documents that have one picture and, if needed, a caption.

    The selection is read from the split's index if it is there, otherwise made and written. Documents with several
    pictures are left out, since it is unknown which text belongs to which picture.

    Args:
        split: The documents.
        tokenizer: The captions' tokenizer.
        max_tokens: Most tokens of a caption, begin and end included.
        captions: Whether captions are needed; otherwise they take no tokens.

    Raises:
        UserError: If the index can't be written, or is damaged.
    """
    index = build_index(split, tokenizer)
    folder = index_folder(split, tokenizer) / f"pictures-{max_tokens if captions else 0}-{_VERSION}"
    if not folder.is_dir():
        try:
            with whole_folder(folder, shared=True) as new:
                _write(new, index, max_tokens, captions)
        except OSError as error:
            raise UserError(f"{folder}: the index can't be written ({error}): free some space") from error
    rows, parts, offsets, target = (map_array(folder / f"{name}.npy") for name in _FILES)
    counts = read_values(folder / _COUNTS)
    return Pictures(rows, Index(parts, offsets, target), counts["left_out"], counts["cut"])


def _write(folder: Path, index: Index, max_tokens: int, captions: bool) -> None:
    """Write the selection to a folder, from a range of documents after another."""
    left_out: Counter[str] = Counter()
    cut = selected = 0
    with ExitStack() as stack:
        writers = {name: stack.enter_context(ArrayWriter(folder / f"{name}.npy", _FILES[name])) for name in _FILES}
        writers["offsets"].write([0])
        for start in range(0, len(index), _DOCUMENTS_AT_ONCE):
            offsets = index.offsets[start : start + _DOCUMENTS_AT_ONCE + 1]
            lengths = index.parts[offsets[0] : offsets[-1]]
            is_image = lengths == IMAGE
            images = document_sums(is_image, offsets - offsets[0])
            tokens = document_sums(np.where(is_image, 0, lengths), offsets - offsets[0])
            uncaptioned = (images == 1) & (tokens == 0) & captions
            rows = np.flatnonzero((images == 1) & ~uncaptioned)
            kept = np.minimum(tokens[rows], max_tokens - 2) if captions else np.zeros(len(rows), np.int64)
            writers["rows"].write(start + rows)
            writers["parts"].write(np.stack([np.full(len(rows), IMAGE), kept], axis=1).reshape(-1))
            writers["offsets"].write(2 * np.arange(selected + 1, selected + len(rows) + 1))
            writers["target"].write(np.tile([False, True], len(rows)))
            selected += len(rows)
            left_out["no picture"] += int((images == 0).sum())
            left_out["several pictures"] += int((images > 1).sum())
            left_out["no caption"] += int(uncaptioned.sum())
            cut += int((tokens[rows] > kept).sum()) if captions else 0
    counts = {reason: count for reason, count in left_out.items() if count}
    write_json(folder / _COUNTS, {"left_out": counts, "cut": cut})
