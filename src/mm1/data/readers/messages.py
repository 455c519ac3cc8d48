"""Conversations as the Hugging Face libraries have them, in parquet or JSON Lines.

    messages: [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
               {"role": "assistant", "content": "A bus."}]          images: [picture, ...]     (TRL)
    texts: [{"user": "What is this?", "assistant": "A bus.", "source": ...}]  images: [picture, ...]  (the_cauldron)

`mm1.data.readers.turns` says which keys are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from mm1.data.readers.opening import JSON_SUFFIXES
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.records import read_records
from mm1.data.readers.rows import documents_of
from mm1.data.readers.turns import TURN_KEYS, chat_of_record
from mm1.document import Document


@dataclass(frozen=True)
class Messages(Reader):
    """Conversations in rows.

    Attributes:
        pictures: The folder of pictures, where they don't lie beside the file that names them.
        suffix: Put behind every question, on a line of its own.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", *JSON_SUFFIXES)
    packable: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    pictures: str = ""
    suffix: str = ""

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a chat document for every row."""
        chat = partial(chat_of_record, suffix=self.suffix)
        for file in shard.files:
            rows = read_records(file, shard.name(file), ["|".join(TURN_KEYS)], notes)
            yield from documents_of(rows, chat, notes, PictureFolder.beside(file, shard.root, self.pictures))
