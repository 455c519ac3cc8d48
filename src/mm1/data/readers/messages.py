"""Conversations as the Hugging Face libraries have them, in parquet or JSON Lines.

    messages: [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
               {"role": "assistant", "content": "A bus."}]          images: [picture, ...]     (TRL)
    texts: [{"user": "What is this?", "assistant": "A bus.", "source": ...}]  images: [picture, ...]  (the_cauldron)

A message's content is a text (with `<image>` where a picture stands) or a list of parts; an image part stands for the
next picture, for the one of its `index`, or holds it itself. Pictures without marks come first. `prompt` and
`completion` are read like `messages` in two pieces. A column `image` may stand for `images`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.conversation import ROLES, Mark, Turn, conversation, marked
from mm1.data.readers.lines import JSON_SUFFIXES
from mm1.data.readers.pictures import PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.records import read_records
from mm1.document import Document

_COLUMNS = ("messages", "texts", "prompt", "completion", "images", "image")


@dataclass(frozen=True)
class Messages(Reader):
    """Conversations in rows.

    Attributes:
        pictures: Folder that paths of pictures are told from; default: the folder of the sources.
        suffix: Put behind every question, on a line of its own.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", *JSON_SUFFIXES)
    packable: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    pictures: str = ""
    suffix: str = ""

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a chat document for every row."""
        folder = PictureFolder(self.pictures or shard.root)
        for file in shard.files:
            for where, row in read_records(file, shard.name(file), ["messages|texts|prompt"], notes):
                document = chat_of_row(row, where, folder, notes, self.suffix)
                if document is not None:
                    yield document


def chat_of_row(
    row: Mapping[str, Any], where: str, folder: PictureFolder, notes: Notes, suffix: str = ""
) -> Document | None:
    """Return the document of a row, or count why there is none and return None."""
    turns = _turns(row)
    if turns is None:
        notes.skipped.add("row whose messages are no list of turns with 'role' and 'content'", where)
        return None
    pictures = row.get("images") if row.get("images") is not None else row.get("image")
    pictures = [] if pictures is None else pictures if isinstance(pictures, list) else [pictures]
    own = {name: value for name, value in row.items() if name not in _COLUMNS and value is not None}
    return conversation(turns, pictures, where, folder, notes, own, suffix)


def is_chat(texts: object) -> bool:
    """Whether a column `texts` holds the_cauldron's conversations (OBELICS has one of texts)."""
    return isinstance(texts, list) and any(isinstance(text, Mapping) for text in texts)


def _turns(row: Mapping[str, Any]) -> list[Turn] | None:
    """Return the turns of a row; None if it has none, or one is not as it should be."""
    if row.get("messages") is None and is_chat(row.get("texts")):
        return _of_pairs(row["texts"])
    messages = row.get("messages")
    if messages is None:
        prompt, completion = row.get("prompt"), row.get("completion")
        messages = [*_as_messages(prompt, "user"), *_as_messages(completion, "assistant")]
    if not isinstance(messages, list) or not messages:
        return None
    turns: list[Turn] = []
    for message in messages:
        role = ROLES.get(str(message.get("role"))) if isinstance(message, Mapping) else None
        pieces = _pieces(message.get("content")) if role else None
        if role is None or pieces is None:
            return None
        turns.append((role, pieces))
    return turns


def _of_pairs(texts: list[Any]) -> list[Turn] | None:
    turns: list[Turn] = []
    for pair in texts:
        if not isinstance(pair, Mapping):
            return None
        for role in ("user", "assistant"):
            if not isinstance(pair.get(role), str):
                return None
            turns.append((role, marked(pair[role])))
    return turns


def _as_messages(value: object, role: str) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [{"role": role, "content": value}]


def _pieces(content: object) -> list[str | Mark] | None:
    """Return a message's texts and marks; None if it is not as it should be."""
    if isinstance(content, str):
        return marked(content)
    if not isinstance(content, list):
        return None
    pieces: list[str | Mark] = []
    for part in content:
        if not isinstance(part, Mapping):
            return None
        if part.get("type") == "image":
            pieces.append(Mark(part.get("index"), part.get("image")))
        elif part.get("type") == "text" and isinstance(part.get("text"), str):
            pieces.append(part["text"])
        else:
            return None
    return pieces
