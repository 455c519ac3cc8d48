r"""Conversations as LLaVA has them: a JSON array (or JSON Lines) and a folder of pictures.

    {"id": "33471", "image": "coco/33471.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A bus."}]}

`image` is a name, a list of names, or missing (arXiv 2304.08485; docs/Finetune_Custom_Data.md of
github.com/haotian-liu/LLaVA).
The n-th `<image>` stands for the n-th picture; a picture without a mark comes first.

The document has kind `chat`: every turn is one text part without mark-up, with its pictures as parts of their own
where the marks stood. `learned` is true for the assistant's texts only. `meta["turns"]` names the role of every
part (`system`, `user`, `assistant`), pictures included: neighbours of the same role make one turn. A chat template
is laid over that later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.lines import read_json_records
from mm1.data.readers.pictures import PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document, Image, Part, Text

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip
_MARK = "<image>"


@dataclass(frozen=True)
class Llava(Reader):
    """Conversations on pictures.

    Attributes:
        pictures: The folder of pictures; default: the folder of the sources.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
    pictures: str = ""

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a chat document for every conversation."""
        folder = PictureFolder(self.pictures or shard.root)
        for file in shard.files:
            for where, record in read_json_records(file, shard.name(file), notes):
                document = chat_of_record(record, where, folder, notes)
                if document is not None:
                    yield document


def chat_of_record(record: dict[str, Any], where: str, folder: PictureFolder, notes: Notes) -> Document | None:
    """Return the document of a record, or count why there is none and return None."""
    turns = _turns(record.get("conversations"))
    if turns is None:
        notes.skipped.add("conversation that is no list of turns with 'from' and 'value'", where)
        return None
    if not any(role == "assistant" and text.strip() for role, text in turns):
        notes.skipped.add("conversation without an answer", where)
        return None
    names = record.get("image") or []
    names = names if isinstance(names, list) else [names]
    marks = sum(text.count(_MARK) for _, text in turns)
    if marks == 0 and names:
        first = next((n for n, (role, _) in enumerate(turns) if role == "user"), 0)
        turns[first] = (turns[first][0], _MARK * len(names) + turns[first][1])
    elif marks != len(names):
        notes.skipped.add("conversation whose <image> marks and pictures differ in number", where)
        return None
    pictures = [folder.take_value(name, None, notes, where) for name in names]
    if None in pictures:  # counted where it was found; a conversation without its picture would teach to make it up
        notes.skipped.add("conversation without its picture", where)
        return None
    supply = iter(pictures)
    parts: list[Part] = []
    roles: list[str] = []
    for role, text in turns:
        for piece in re.split(f"({_MARK})", text):
            part = next(supply) if piece == _MARK else Text(piece.strip(), learned=role == "assistant")
            if isinstance(part, Image) or (part is not None and part.text):
                parts.append(part)
                roles.append(role)
    own = {name: value for name, value in record.items() if name not in ("conversations", "image")}
    return Document(where, "chat", tuple(parts), {**own, "turns": roles})


def _turns(conversation: object) -> list[tuple[str, str]] | None:
    if not isinstance(conversation, list):
        return None
    turns = []
    for turn in conversation:
        role = ROLES.get(turn["from"]) if isinstance(turn, dict) and isinstance(turn.get("from"), str) else None
        if role is None or not isinstance(turn.get("value"), str):
            return None
        turns.append((role, turn["value"]))
    return turns
