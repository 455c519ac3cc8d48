"""Datasets of the Hugging Face Hub (or a local folder in the same form), streamed.

Rows are read as the columns say: `messages`, and `images` and `texts` of questions and answers, as conversations;
`images` and `texts` else as OBELICS'; `conversations` as LLaVA's; a picture, a question and an answer as a conversation
too; a picture and a caption as a captioned picture; `text` alone as plain text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from datasets import Image as ImageFeature
from datasets import IterableDataset, load_dataset
from datasets.exceptions import DatasetsError

from mm1.data.readers.captions import CAPTION_COLUMNS, IMAGE_COLUMNS, Captions
from mm1.data.readers.llava import chat_of_record
from mm1.data.readers.messages import chat_of_row, is_chat
from mm1.data.readers.obelics import page_of_row
from mm1.data.readers.parquet import check_columns
from mm1.data.readers.pictures import PictureFolder
from mm1.data.readers.questions import ANSWER_COLUMNS, QUESTION_COLUMNS, Questions
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.text import text_of_row
from mm1.document import Document
from mm1.errors import UserError

RowReader = Callable[[Mapping[str, Any], str, PictureFolder, Notes], Document | None]


@dataclass(frozen=True)
class Hub(Reader):
    """Datasets by id.

    Attributes:
        subset: The dataset's configuration, where it has several.
        split: Its split.
        revision: Commit or tag; name one and the corpus can be built again as it was.
        image: Column of the pictures of captioned pictures; default: as the format `captions` finds it.
        caption: Column of their captions; likewise.
        text: Column of plain text.
        suffix: Conversations: put behind every question, on a line of its own. Captions become answers to it.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    subset: str = ""
    split: str = "train"
    revision: str = ""
    image: str = ""
    caption: str = ""
    text: str = "text"
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

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a document for every row of one part of the dataset."""
        name = shard.files[0]
        label = f"{_label(name)}/{self.split}/{shard.part}"
        rows = self._open(name).shard(num_shards=shard.parts, index=shard.part)
        for column, feature in (rows.features or {}).items():
            # Pictures are kept as they are, not decoded; nor are files outside of the dataset opened for them.
            if isinstance(feature, ImageFeature) or isinstance(getattr(feature, "feature", None), ImageFeature):
                plain = ImageFeature(decode=False)
                is_list = not isinstance(feature, ImageFeature)
                rows = rows.cast_column(column, type(feature)(plain) if is_list else plain)
        folder = PictureFolder(name if os.path.isdir(name) else os.devnull)
        read_row: RowReader | None = None
        number = 0
        try:
            for number, row in enumerate(rows):
                read_row = read_row or self.row_reader(name, list(row))
                document = read_row(row, f"{label}:{number}", folder, notes)
                if document is not None:
                    yield document
        except (OSError, ValueError, DatasetsError) as error:
            raise UserError(
                f"{name}: reading row {number} of part {shard.part} failed ({_first_line(error)}): "
                "run the same command again, it goes on from the parts that are done"
            ) from error

    def row_reader(self, source: str, columns: list[str]) -> RowReader:
        """Return the function that makes documents of rows with these columns.

        Raises:
            UserError: If no reader takes them, or one that was named is missing.
        """
        present = set(columns)
        captions = Captions(self.image, self.caption)
        if self.image or self.caption:
            check_columns(source, columns, captions.columns)
            return captions.caption_of_row
        if "messages" in present:
            return lambda row, where, folder, notes: chat_of_row(row, where, folder, notes, self.suffix)
        if {"images", "texts"} <= present:
            return lambda row, where, folder, notes: (
                chat_of_row(row, where, folder, notes, self.suffix)
                if is_chat(row["texts"])
                else page_of_row(row, where, folder, notes)
            )
        if "conversations" in present:
            return lambda row, where, folder, notes: chat_of_record(dict(row), where, folder, notes, self.suffix)
        asked = self.suffix or present & set(QUESTION_COLUMNS)
        if asked and present & set(IMAGE_COLUMNS) and present & set(ANSWER_COLUMNS):
            return Questions(suffix=self.suffix).chat_of_row
        if present & set(IMAGE_COLUMNS) and present & set(CAPTION_COLUMNS):
            return captions.caption_of_row
        check_columns(source, columns, [self.text])
        return lambda row, where, folder, notes: text_of_row(row, where, self.text, notes)

    def _open(self, name: str) -> IterableDataset:
        return _open(name, self.subset, self.split, self.revision)


@cache
def _open(name: str, subset: str, split: str, revision: str) -> IterableDataset:
    """Open a dataset; once in a process, since its files are looked up over the network."""
    try:
        return load_dataset(name, subset or None, split=split, revision=revision or None, streaming=True)
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"{name}: the dataset can't be opened ({_first_line(error)}): check its id, subset and split, and "
            "whether the network can be reached"
        ) from error


def _label(name: str) -> str:
    return os.path.basename(os.path.abspath(name)) if os.path.isdir(name) else name


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
