"""The index of a corpus's split: the number of tokens in every part of every document, for one tokenizer.

    train/*.arrow --texts only--> row ranges --tokenize, over processes--> index/train-CONTENT-TOKENIZER-3/*.npy

The index is stored next to the split and named by the split's content and the tokenizer's fingerprint, so it is made
once and never outdated. Pictures are not read, and their tokens are not counted, since they depend on the connector: a
picture is marked with `IMAGE`. For long texts, and for all texts of a small split, the index also has the tokens (see
`LongTexts`). Conversations are counted in the chat template's layout (`mm1.plan.conversations`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from tokenizers import Tokenizer

from mm1.data.corpus import Split, open_split
from mm1.data.schema import TARGET
from mm1.data.shards import open_job, run_units, unit_file
from mm1.document import Document
from mm1.errors import UserError
from mm1.files import hold, whole_folder, write_json
from mm1.plan.arrays import ArrayWriter, map_array, read_values
from mm1.plan.conversations import count_conversations
from mm1.plan.lengths import IMAGE, LONG, Index, LongTexts, long_from
from mm1.processing.chat import ChatLayout
from mm1.processing.tokenizer import without_beginning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


VERSION, SMALL_VERSION = 3, 4
"""Version of the files of an index, and of one that has the tokens of all texts; part of their folder's name."""

_CHAT = "chat.json"
_LONG_OFFSETS = "long_offsets"
_UNUSABLE = "unusable.json"
_ROWS_PER_UNIT = 65_536
_ROWS_AT_ONCE = 1024
_CHARACTERS_PER_CALL = 1_000_000  # the tokenizer's results take about 100 bytes per token
_ONE_PROCESS_BELOW = 500_000  # documents; more processes take seconds to start, and one tokenizes on all cores

_FILES = {
    "parts": np.int32,
    "offsets": np.int64,
    "target": np.bool_,
    "long_parts": np.int64,
    "long_offsets": np.int64,
    "long_ids": np.uint32,
}
_UNIT_FILES = {"counts": np.int64} | {name: dtype for name, dtype in _FILES.items() if not name.endswith("offsets")}


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of everything that determines how text becomes tokens."""
    return hashlib.blake2b(_serialized(tokenizer).encode(), digest_size=8).hexdigest()


def build_index(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    workers: int | None = None,
    engine: str = "processes",
    chat: ChatLayout | None = None,
) -> Index:
    """Return the index of a split; it is read if it exists, otherwise made and written next to the split.

    Args:
        split: The documents.
        tokenizer: A fast tokenizer (of the `tokenizers` library).
        workers: Processes; default: one per core, or one for fewer than 500,000 documents. The result doesn't depend
            on it.
        engine: Where tokens are counted: `processes` on this machine, or `ray` on a cluster.
        chat: The chat template; required if there are conversations.

    Raises:
        UserError: If the index can't be written, is damaged, or a process died.
    """
    folder = index_folder(split, tokenizer, chat)
    if not has_conversations(split):
        chat = None
    if not folder.is_dir():
        if workers is None and engine == "processes" and len(split) < _ONE_PROCESS_BELOW:
            workers = 1
        try:
            folder.parent.mkdir(exist_ok=True)
            with hold(folder.with_name(f"{folder.name}.lock"), wait=True):
                if not folder.is_dir():  # another process may have written it meanwhile
                    _write(folder, split, _serialized(tokenizer), workers, engine, chat)
        except OSError as error:
            raise UserError(f"{folder}: the index can't be written ({error}): free some space") from error
    arrays = {name: map_array(folder / f"{name}.npy") for name in _FILES if name != _LONG_OFFSETS}
    arrays[_LONG_OFFSETS] = _long_offsets(folder, arrays)
    long_texts = LongTexts(arrays["long_parts"], arrays[_LONG_OFFSETS], arrays["long_ids"])
    index = Index(arrays["parts"], arrays["offsets"], arrays["target"], long_texts)
    if chat is None:
        return index
    file = folder / _UNUSABLE
    unusable = read_values(file) if file.is_file() else {}  # older indexes have no such rows
    return replace(index, chat=map_array(folder / "chat.npy"), unusable=unusable)


def _long_offsets(folder: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    file = folder / f"{_LONG_OFFSETS}.npy"
    if file.is_file():
        return map_array(file)
    return np.concatenate([[0], np.cumsum(arrays["parts"][arrays["long_parts"]], dtype=np.int64)])  # an older index


def index_folder(split: Split, tokenizer: PreTrainedTokenizerBase, chat: ChatLayout | None = None) -> Path:
    """Return the folder of a split's index, which may not be there yet; the arguments are those of `build_index`.

    Raises:
        UserError: If there are conversations, but no chat template.
    """
    version = SMALL_VERSION if keeps_from(split) == 0 else VERSION
    names = [split.directory.name, split.content_hash, tokenizer_fingerprint(tokenizer), str(version)]
    if has_conversations(split):
        if chat is None:
            raise UserError(
                f"{split.name}: the split has conversations, but the model has no chat template: list the split under "
                "the kind `chat` in data.mixture"
            )
        names.append(chat.fingerprint)
    return split.directory.parent / "index" / "-".join(names)


def keeps_from(split: Split) -> int:
    """Return the number of characters from which the index has the tokens of a split's texts."""
    return LONG if has_conversations(split) else long_from(split.info["characters"])


def has_conversations(split: Split) -> bool:
    """Return whether a split has conversations, which the chat template lays out."""
    return "chat" in split.info.get("kinds", {})


def _serialized(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the tokenizer as JSON, without the settings of its last call and of its processor."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    post_processor = without_beginning(content["post_processor"])
    return json.dumps(
        {**content, "truncation": None, "padding": None, "post_processor": post_processor}, ensure_ascii=False
    )


def _write(
    folder: Path, split: Split, tokenizer: str, workers: int | None, engine: str, chat: ChatLayout | None
) -> None:
    """Count tokens in a folder next to the index, where an interrupted job resumes; then write the index from it."""
    job = folder.with_name(f"{folder.name}.counting").absolute()
    units = [range(start, min(start + _ROWS_PER_UNIT, len(split))) for start in range(0, len(split), _ROWS_PER_UNIT)]
    single = engine == "processes" and (workers == 1 or len(units) < 2)
    open_job(job, {"rows_per_unit": _ROWS_PER_UNIT})
    write_json(job / "tokenizer.json", json.loads(tokenizer))
    if chat is not None:
        write_json(job / _CHAT, asdict(chat))
    count = partial(_count_unit, split.reference, job / "tokenizer.json", single)
    description = f"count tokens of {split.name}"
    infos = run_units(count, units, job, workers=workers, description=description, engine=engine)
    with whole_folder(folder, shared=True) as new:
        _gather(job, len(units), new)
        if chat is not None:
            with ArrayWriter(new / "chat.npy", np.bool_) as is_chat:
                for batch in split.batches():
                    is_chat.write(pc.equal(batch.column("kind"), "chat").to_numpy(zero_copy_only=False))
            unusable: dict[str, list[int]] = {}
            for row, reason in (pair for info in infos for pair in info["unusable"]):
                unusable.setdefault(reason, []).append(row)
            write_json(new / _UNUSABLE, unusable, indent=None)
    shutil.rmtree(job)


def _gather(job: Path, units: int, target: Path) -> None:
    """Write the counts of all units, in order, to the index's arrays."""
    with ExitStack() as stack:
        writers = {name: stack.enter_context(ArrayWriter(target / f"{name}.npy", _FILES[name])) for name in _FILES}
        for name in ("offsets", _LONG_OFFSETS):
            writers[name].write([0])
        for number in range(units):
            counted = {name: map_array(unit_file(job, number, f".{name}.npy")) for name in _UNIT_FILES}
            # A unit's positions are relative to the unit; the index's are relative to the split.
            before = writers["parts"].length
            writers["offsets"].write(before + np.cumsum(counted["counts"], dtype=np.int64))
            writers["long_parts"].write(before + counted["long_parts"])
            long_lengths = counted["parts"][counted["long_parts"]]
            writers[_LONG_OFFSETS].write(writers["long_ids"].length + np.cumsum(long_lengths, dtype=np.int64))
            for name in ("parts", "target", "long_ids"):
                writers[name].write(counted[name])


def _count_unit(split: str, tokenizer: Path, single: bool, rows: range, file: Path) -> dict[str, Any]:
    """Count the tokens of a range of rows, and write the counts to arrays next to `file`.

    Args:
        split: The split (see `Split.reference`).
        tokenizer: The tokenizer's JSON file; next to it is `chat.json`, the chat template, if there are conversations.
        single: Whether this is the only process that counts; the tokenizer then uses all cores.
        rows: The rows.
        file: A path whose stem names the arrays.

    Returns:
        Under `unusable`, the rows of conversations that can't be laid out, each with the reason.
    """
    if not single:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # this process has one core
    counter = _counter(split, tokenizer)
    unusable: list[tuple[int, str]] = []
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(ArrayWriter(file.with_suffix(f".{name}.npy"), dtype))
            for name, dtype in _UNIT_FILES.items()
        }
        for start in range(rows.start, rows.stop, _ROWS_AT_ONCE):
            counted, reasons = counter(start, min(start + _ROWS_AT_ONCE, rows.stop))
            unusable += [(start + position, reason) for position, reason in reasons.items()]
            counted["long_parts"] += writers["parts"].length
            for name, values in counted.items():
                writers[name].write(values)
    return {"unusable": unusable}


@lru_cache(maxsize=4)
def _counter(split: str, tokenizer: Path) -> _Counter:
    """Return the counter of a split; each process makes it once for all its units."""
    file = tokenizer.with_name(_CHAT)
    chat = ChatLayout(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
    return _Counter(open_split(split), tokenizer.read_text(encoding="utf-8"), chat)


class _Counter:
    """Counts the tokens of a split's rows.

    Args:
        split: The documents.
        tokenizer: The tokenizer as JSON.
        chat: The chat template, if there are conversations.
    """

    def __init__(self, split: Split, tokenizer: str, chat: ChatLayout | None = None) -> None:
        self.split, self.chat, self.long = split, chat, keeps_from(split)
        self.tokenizer = Tokenizer.from_str(tokenizer)
        # As in encode_document, the characters "<image>" in a text are text.
        self.tokenizer.encode_special_tokens = True

    def __call__(self, start: int, stop: int) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Return the arrays of `_UNIT_FILES` for a row range, and why conversations are unusable, by position."""
        if self.chat is not None:
            return self._conversations(self.split.without_pictures(start, stop), self.chat)
        counted: dict[str, list[Any]] = {name: [] for name in _UNIT_FILES}
        before = 0
        for batch in self.split.batches(start, stop):
            documents = batch.column("parts")
            parts = documents.flatten()
            texts = parts.field("text")
            is_text = texts.is_valid().to_numpy(zero_copy_only=False)
            tokens = np.full(len(parts), IMAGE, dtype=np.int32)
            lengths, long_ones, long_ids = self._tokenize(texts.drop_null().to_pylist())
            tokens[is_text] = lengths
            counted["counts"].append(np.diff(documents.offsets.to_numpy()))
            counted["parts"].append(tokens)
            counted["target"].append(parts.field(TARGET).to_numpy(zero_copy_only=False).astype(bool) & is_text)
            counted["long_parts"].append(before + np.flatnonzero(is_text)[long_ones])
            counted["long_ids"] += [np.zeros(0, np.uint32), *long_ids]
            before += len(parts)
        return {name: np.concatenate(arrays) for name, arrays in counted.items()}, {}

    def _conversations(
        self, documents: Iterator[Document], chat: ChatLayout
    ) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Return what `__call__` does for documents with conversations; no text counts as long."""
        counts = count_conversations(documents, chat, lambda texts: self._tokenize(texts)[0])
        none = {name: np.zeros(0, _UNIT_FILES[name]) for name in ("long_parts", "long_ids")}
        arrays = {"counts": counts.parts, "parts": counts.tokens, "target": counts.target, **none}
        return arrays, counts.unusable

    def _tokenize(self, texts: list[str]) -> tuple[list[int], np.ndarray, list[np.ndarray]]:
        """Return the number of tokens of every text, the numbers of the long texts, and their tokens."""
        lengths: list[int] = []
        long_ids: list[np.ndarray] = []
        batch: list[str] = []
        characters = 0
        for number, text in enumerate(texts, 1):
            batch.append(text)
            characters += len(text)
            if characters >= _CHARACTERS_PER_CALL or number == len(texts):
                encodings = self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
                lengths += map(len, encodings)
                long_ids += [
                    np.array(encoding.ids, np.uint32)
                    for text, encoding in zip(batch, encodings, strict=True)
                    if len(text) >= self.long
                ]
                batch, characters = [], 0
        return lengths, np.flatnonzero([len(text) >= self.long for text in texts]), long_ids
