"""The index of a corpus split: how many tokens every part of every document has, for one tokenizer.

    train/*.arrow --texts only--> row ranges --tokenize, over processes--> index/train-CONTENT-TOKENIZER/*.npy

Kept beside the split, named by the split's content and the tokenizer's fingerprint, so it is made once and
never stale. Pictures are not read, and their tokens are not counted (they depend on the connector): a
picture's place is marked with `IMAGE`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from mm1.data.arrays import ArrayWriter, map_array
from mm1.data.corpus import Split
from mm1.errors import UserError
from mm1.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IMAGE = -1
"""Marks a picture among the part lengths."""

_ROWS_PER_TASK = 1024
_CHARACTERS_PER_CALL = 1_000_000  # the tokenizer's results take about 100 bytes a token
_ONE_PROCESS_BELOW = 500_000  # documents; processes take seconds to start, and one tokenizes on all cores already

Counts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Parts per document, and per part its tokens (or `IMAGE`) and whether it is learned."""


@dataclass(frozen=True)
class Index:
    """Part lengths of all documents of a split.

    Attributes:
        parts: (number of parts,) int32: tokens of a text part, or `IMAGE`.
        offsets: (documents + 1,) int64: where each document's parts begin in `parts`.
        learned: (number of parts,) bool: whether the part is a text that is learned.
    """

    parts: np.ndarray
    offsets: np.ndarray
    learned: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, documents: np.ndarray) -> Index:
        """Return the index of some documents, in the order given.

        Args:
            documents: (n,) rows.
        """
        first, counts = self.offsets[documents], self.offsets[documents + 1] - self.offsets[documents]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        which = np.repeat(first - offsets[:-1], counts) + np.arange(offsets[-1])
        return Index(self.parts[which], offsets, self.learned[which])


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides how text becomes tokens."""
    return hashlib.blake2b(_serialized(tokenizer).encode(), digest_size=8).hexdigest()


def build_index(split: Split, tokenizer: PreTrainedTokenizerBase, workers: int | None = None) -> Index:
    """Count the tokens of every part; taken from the files beside the split if they are there.

    Args:
        split: The documents.
        tokenizer: A fast one (of the `tokenizers` library).
        workers: Processes; default: as many as there are cores, one for less than 500,000 documents. The
            result does not depend on it.

    Raises:
        UserError: If the index can't be written, or a process was killed.
    """
    folder = (
        split.directory.parent
        / "index"
        / "-".join((split.directory.name, split.content_hash, tokenizer_fingerprint(tokenizer)))
    )
    if not folder.is_dir():
        if workers is None:
            workers = 1 if len(split) < _ONE_PROCESS_BELOW else os.cpu_count() or 1
        _write(folder, split, _serialized(tokenizer), workers)
    return Index(*(map_array(folder / f"{name}.npy") for name in ("parts", "offsets", "learned")))


def _serialized(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the tokenizer as JSON, without what its last call left in it."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps({**content, "truncation": None, "padding": None}, ensure_ascii=False)


def _write(folder: Path, split: Split, tokenizer: str, workers: int) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        with (
            ArrayWriter(partial / "parts.npy", np.int32) as parts,
            ArrayWriter(partial / "offsets.npy", np.int64) as offsets,
            ArrayWriter(partial / "learned.npy", np.bool_) as learned,
            progress_bar() as bar,
        ):
            task = bar.add_task(f"count tokens of {split.name}", total=len(split), note="")
            offsets.write([0])
            for counts, tokens, is_learned in _count(split, tokenizer, workers):
                offsets.write(parts.length + np.cumsum(counts))
                parts.write(tokens)
                learned.write(is_learned)
                bar.advance(task, len(counts))
        if not folder.is_dir():  # another process may have been faster
            partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: the index could not be written ({error}): free some space") from error
    except BrokenProcessPool:
        raise UserError(
            f"{split.directory}: a process that counted tokens was killed, as for want of memory: run the same "
            "command again"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _count(split: Split, tokenizer: str, workers: int) -> Iterator[Counts]:
    """Yield the counts of the split's row ranges, in order."""
    ranges = [(start, min(start + _ROWS_PER_TASK, len(split))) for start in range(0, len(split), _ROWS_PER_TASK)]
    if workers == 1 or len(ranges) < 2:
        counter = _Counter(split, tokenizer)
        for start, stop in ranges:
            yield counter(start, stop)
        return
    with _one_thread_each():
        # Spawned, not forked: Arrow's and the tokenizer's threads don't survive a fork.
        pool = ProcessPoolExecutor(
            min(workers, len(ranges)), multiprocessing.get_context("spawn"), _start, (split.directory, tokenizer)
        )
        try:
            yield from pool.map(_count_rows, *zip(*ranges, strict=True))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Have the processes started meanwhile tokenize on one thread: they are as many as the cores."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


class _Counter:
    """Counts the tokens of a split's rows.

    Args:
        split: The documents.
        tokenizer: As JSON.
    """

    def __init__(self, split: Split, tokenizer: str) -> None:
        self.parts = split.parts
        self.tokenizer = Tokenizer.from_str(tokenizer)
        # As in encode_document: the characters "<image>" in a text are text.
        self.tokenizer.encode_special_tokens = True

    def __call__(self, start: int, stop: int) -> Counts:
        """Return the counts of a row range."""
        chunks = [self._count_chunk(chunk) for chunk in self.parts.slice(start, stop - start).chunks]
        counts, tokens, learned = (np.concatenate(column) for column in zip(*chunks, strict=True))
        return counts, tokens, learned

    def _count_chunk(self, chunk: pa.ListArray) -> Counts:
        parts = chunk.flatten()
        texts = parts.field("text")
        is_text = texts.is_valid().to_numpy(zero_copy_only=False)
        tokens = np.full(len(parts), IMAGE, dtype=np.int32)
        tokens[is_text] = self._lengths(texts.drop_null().to_pylist())
        learned = parts.field("learned").to_numpy(zero_copy_only=False).astype(bool) & is_text
        return np.diff(chunk.offsets.to_numpy()), tokens, learned

    def _lengths(self, texts: list[str]) -> list[int]:
        lengths: list[int] = []
        batch: list[str] = []
        characters = 0
        for text in texts:
            batch.append(text)
            characters += len(text)
            if characters >= _CHARACTERS_PER_CALL:
                lengths += map(len, self.tokenizer.encode_batch_fast(batch, add_special_tokens=False))
                batch, characters = [], 0
        return lengths + [len(e) for e in self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)]


_counter: _Counter | None = None


def _start(directory: Path, tokenizer: str) -> None:
    global _counter
    _counter = _Counter(Split(directory), tokenizer)


def _count_rows(start: int, stop: int) -> Counts:
    if _counter is None:
        raise RuntimeError("the process was not started with _start")
    return _counter(start, stop)
