r"""Conversations as LLaVA has them: a JSON array (or JSON Lines) and a folder of pictures.

    {"id": "33471", "image": "coco/33471.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A bus."}]}

`image` is a name, a list of names, or missing (arXiv 2304.08485; docs/Finetune_Custom_Data.md of
github.com/haotian-liu/LLaVA).
The n-th `<image>` stands for the n-th picture; a picture without a mark comes first. The document is that of
`mm1.data.readers.conversation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.conversation import ROLES, Turn, conversation, marked
from mm1.data.readers.lines import JSON_SUFFIXES, read_json_records
from mm1.data.readers.pictures import PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document


@dataclass(frozen=True)
class Llava(Reader):
    """Conversations on pictures.

    Attributes:
        pictures: The folder of pictures; default: the folder of the sources.
        suffix: Put behind every question, on a line of its own.
    """

    suffixes: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    packable: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    pictures: str = ""
    suffix: str = ""

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a chat document for every conversation."""
        folder = PictureFolder(self.pictures or shard.root)
        for file in shard.files:
            for where, record in read_json_records(file, shard.name(file), notes):
                document = chat_of_record(record, where, folder, notes, self.suffix)
                if document is not None:
                    yield document


def chat_of_record(
    record: dict[str, Any], where: str, folder: PictureFolder, notes: Notes, suffix: str = ""
) -> Document | None:
    """Return the document of a record, or count why there is none and return None."""
    turns = _turns(record.get("conversations"))
    if turns is None:
        notes.skipped.add("conversation that is no list of turns with 'from' and 'value'", where)
        return None
    names = record.get("image") or []
    own = {name: value for name, value in record.items() if name not in ("conversations", "image")}
    return conversation(turns, names if isinstance(names, list) else [names], where, folder, notes, own, suffix)


def _turns(value: object) -> list[Turn] | None:
    if not isinstance(value, list):
        return None
    turns: list[Turn] = []
    for turn in value:
        role = ROLES.get(turn["from"]) if isinstance(turn, dict) and isinstance(turn.get("from"), str) else None
        if role is None or not isinstance(turn.get("value"), str):
            return None
        turns.append((role, marked(turn["value"])))
    return turns
