"""Datasets of the Hugging Face Hub (or a local folder in the same form), streamed.

Rows are taken as Arrow holds them: pictures stay as they are, wherever they stand, and nothing that a row names is
opened or decoded. They are read as the columns say: `messages`, and `images` and `texts` of questions and answers, as
conversations; `images` and `texts` else as OBELICS'; `conversations` as LLaVA's; a picture, a question and an answer as
a conversation too; a picture and a caption as a captioned picture; `text` alone as plain text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Any, ClassVar

import pyarrow as pa
from datasets import IterableDataset, Json, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi

from mm1.data.readers.captions import CAPTION_COLUMNS, IMAGE_COLUMNS, CaptionReader, Captions
from mm1.data.readers.fetching import with_pictures
from mm1.data.readers.layout import parse_json
from mm1.data.readers.obelics import page_of_row
from mm1.data.readers.parquet import check_columns, rows_of_batch
from mm1.data.readers.picture_folder import NOWHERE, PictureFolder
from mm1.data.readers.questions import ANSWER_COLUMNS, QUESTION_COLUMNS, Questions
from mm1.data.readers.reader import Notes, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.text import text_of_row
from mm1.data.readers.turns import chat_of_record, is_chat
from mm1.document import Document
from mm1.errors import UserError
from mm1.fetch.web import Web

RowReader = Callable[[Mapping[str, Any], Place], Document | list[Document]]


@dataclass(frozen=True)
class Hub(CaptionReader):
    """Datasets by id.

    Attributes:
        subset: The dataset's configuration, where it has several.
        split: Its split.
        revision: Commit or tag. Without one the newest commit is read, of one dataset; the corpus says which.
        image: Column of the pictures of captioned pictures; default: as the format `captions` finds it.
        caption: Column of their captions; likewise.
        text: Column of plain text.
        fetch: Whether pictures of pages that are given by web addresses are fetched.
        own_host: `HOST:PORT` of a server, such as a mirror, that may be asked although it is not on the open net.
        suffix: Conversations: put behind every question, on a line of its own. Captions become answers to it.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    subset: str = ""
    split: str = "train"
    revision: str = ""
    image: str = ""
    caption: str = ""
    text: str = "text"
    fetch: bool = False
    own_host: str = ""
    suffix: str = ""

    def shards(self, patterns: Sequence[str]) -> list[Shard]:
        """Return one shard for every file of the datasets.

        Args:
            patterns: Ids such as `HuggingFaceM4/OBELICS`, or local folders.

        Raises:
            UserError: If a dataset can't be opened.
        """
        shards: list[Shard] = []
        labels = [_label(name) for name in patterns]
        if len(set(labels)) < len(labels):
            raise UserError(f"two datasets are called {max(labels, key=labels.count)}: build them one at a time")
        for name in patterns:
            parts = self._open(name).num_shards
            shards += [Shard("", (name,), part, parts) for part in range(parts)]
        return shards

    def at_commit(self, patterns: Sequence[str], known: str | None) -> Hub:
        """Return the reader with a commit as its revision; as it is for folders and several datasets.

        Args:
            patterns: As of `shards`.
            known: That of an earlier job on the same; None: the newest is taken.

        Raises:
            UserError: If the Hub doesn't tell.
        """
        if self.revision or len(patterns) != 1 or os.path.isdir(patterns[0]):
            return self
        if known is not None:
            return replace(self, revision=known)
        try:
            commit = HfApi().dataset_info(patterns[0]).sha
        except Exception as error:  # what libraries for networks raise has no common base
            raise _cant_open(patterns[0], error) from error
        return replace(self, revision=commit or "")

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a document for every row of one part of the dataset."""
        name = shard.files[0]
        rows = self._open(name).shard(num_shards=shard.parts, index=shard.part)
        label = f"{_label(name)}/{self.split}/{shard.part}"
        numbered = _rows(rows, name, label, notes)
        if self.fetch:
            numbered = with_pictures(numbered, Web(self.own_host.split()), shard.beside, label)
        first = next(numbered, None)
        if first is None:
            return
        read_row = self.row_reader(name, list(first[1]))
        folder = PictureFolder((os.path.abspath(name),)) if os.path.isdir(name) else NOWHERE
        yield from documents_of(chain([first], numbered), read_row, notes, folder)

    def row_reader(self, source: str, columns: list[str]) -> RowReader:
        """Return the function that makes documents of rows with these columns.

        Raises:
            UserError: If no reader takes them, or one that was named is missing.
        """
        present = set(columns)
        captions = Captions(image=self.image, caption=self.caption, caption_list=self.caption_list, seed=self.seed)
        chat = partial(chat_of_record, suffix=self.suffix)
        if self.image or self.caption:
            check_columns(source, columns, captions.columns)
            return captions.captions_of_row
        if "messages" in present:
            return chat
        if {"images", "texts"} <= present:
            return lambda row, place: chat(row, place) if is_chat(row["texts"]) else page_of_row(row, place)
        if present & {"conversations", "conversation"} or {"prompt", "completion"} <= present:
            return chat
        asked = self.suffix or present & set(QUESTION_COLUMNS)
        if asked and present & set(IMAGE_COLUMNS) and present & set(ANSWER_COLUMNS):
            return Questions(suffix=self.suffix).chat_of_row
        if present & set(IMAGE_COLUMNS) and present & set(CAPTION_COLUMNS):
            return captions.captions_of_row
        check_columns(source, columns, [self.text])
        return partial(text_of_row, column=self.text)

    def _open(self, name: str) -> IterableDataset:
        return _open(name, self.subset, self.split, self.revision)


def _rows(rows: IterableDataset, name: str, label: str, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `label:number` and every row of a part of a dataset; what is damaged of it is counted.

    Raises:
        UserError: If the network fails.
    """
    features = dict(rows.features or {})
    number = 0
    try:
        # More rows at once fail where their keys differ in order.
        for table in rows.with_format("arrow").iter(batch_size=1):
            for row in rows_of_batch(table):
                yield f"{label}:{number}", {column: _plain(row[column], features.get(column)) for column in row}
                number += 1
    except Exception as error:  # what libraries for networks raise has no common base
        if os.path.isdir(name) or isinstance(error, (pa.ArrowInvalid, DatasetsError, UnicodeError)):
            reason = "damaged part of a dataset: the rest of it could not be read"
            notes.skipped.add(reason, f"{label} after row {number} ({_first_line(error)})")
            return
        raise UserError(
            f"{name}: reading row {number} of {label} failed ({_first_line(error)}): run the same command again, it "
            "goes on from the parts that are done"
        ) from error
    if number == 0:
        notes.skipped.add("part of a dataset without rows", label)


def _plain(value: Any, feature: object) -> Any:
    """Return a value with the JSON in it read: `datasets` stores so what has no type of its own."""
    if isinstance(feature, Json):
        try:
            return parse_json(value) if isinstance(value, str) else value
        except ValueError:
            return value
    if isinstance(feature, Mapping) and isinstance(value, Mapping):
        return {key: _plain(one, feature.get(key)) for key, one in value.items()}
    if isinstance(value, list):
        inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
        return [_plain(one, inner) for one in value]
    return value


@cache
def _open(name: str, subset: str, split: str, revision: str) -> IterableDataset:
    """Open a dataset; once in a process, since its files are looked up over the network."""
    try:
        return load_dataset(name, subset or None, split=split, revision=revision or None, streaming=True)
    except (OSError, ValueError, DatasetsError) as error:
        raise _cant_open(name, error) from error


def _cant_open(name: str, error: Exception) -> UserError:
    remedy = (
        "check its split, or read its files by another format than hub"
        if os.path.isdir(name)
        else "check its id, subset and split, and whether the network can be reached"
    )
    return UserError(f"{name}: the dataset can't be opened ({_first_line(error)}): {remedy}")


def _label(name: str) -> str:
    return os.path.basename(os.path.abspath(name)) if os.path.isdir(name) else name


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
