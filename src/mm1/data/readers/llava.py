r"""Conversations as LLaVA has them: a JSON array (or JSON Lines) and a folder of pictures.

    {"id": "33471", "image": "coco/33471.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A bus."}]}

`image` is a name, a list of names, or missing (arXiv 2304.08485; docs/Finetune_Custom_Data.md of
github.com/haotian-liu/LLaVA); LLaMA-Factory has `images`, and `system` beside the turns.
The n-th `<image>` stands for the n-th picture; a picture without a mark comes first. The document is that of
`mm1.data.readers.conversation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from mm1.data.readers.lines import read_json_records
from mm1.data.readers.opening import JSON_SUFFIXES
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.rows import documents_of
from mm1.data.readers.turns import chat_of_record
from mm1.document import Document


@dataclass(frozen=True)
class Llava(Reader):
    """Conversations on pictures.

    Attributes:
        pictures: The folder of pictures, where they don't lie beside the file that names them.
        suffix: Put behind every question, on a line of its own.
    """

    suffixes: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    packable: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    pictures: str = ""
    suffix: str = ""

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a chat document for every conversation."""
        chat = partial(chat_of_record, suffix=self.suffix)
        for file in shard.files:
            records = read_json_records(file, shard.name(file), notes)
            yield from documents_of(records, chat, notes, PictureFolder.beside(file, shard.root, self.pictures))
