"""What the readers of conversations share: turns and pictures become a chat document, or it is counted why not.

Every turn is one text part without mark-up, with its pictures as parts of their own where their marks stood.
`target` is true for the assistant's texts only. `meta["turns"]` names the role of every part (`system`, `user`,
`assistant`), pictures included: neighbours of the same role make one turn. The chat template is laid over that when
the document is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mm1.data.readers.pictures import PictureFolder
from mm1.data.readers.reader import Notes
from mm1.document import Document, Image, Part, Text

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip
MARK = "<image>"


@dataclass(frozen=True, slots=True)
class Mark:
    """The place of a picture in a turn.

    Attributes:
        index: Which of the record's pictures; None: the next one.
        picture: The picture itself, where the turn holds it.
    """

    index: int | None = None
    picture: Any = None


Turn = tuple[str, list[str | Mark]]
"""The role, and texts and marks in order."""


def marked(text: str) -> list[str | Mark]:
    """Return a text cut at its `<image>` marks."""
    pieces: list[str | Mark] = []
    for number, piece in enumerate(text.split(MARK)):
        pieces += [piece] if number == 0 else [Mark(), piece]
    return pieces


def conversation(
    turns: Sequence[Turn],
    pictures: Sequence[Any],
    where: str,
    folder: PictureFolder,
    notes: Notes,
    meta: Mapping[str, Any],
    suffix: str = "",
) -> Document | None:
    """Return the chat document of a record, or count why there is none and return None.

    Pictures without marks come first, before the first question.

    Args:
        turns: In order.
        pictures: What the record holds of its pictures: bytes, `{"bytes", "path"}` or paths.
        where: What to call the record; the document's id.
        folder: Where paths are told from.
        notes: Where it is counted.
        meta: What else is known of it.
        suffix: Put behind every question on a line of its own, as LLaVA-1.5's prompts have it.
    """
    turns = list(turns)
    problem = _problem(turns)
    if problem is not None:
        notes.skipped.add(problem, where)
        return None
    marks = [piece for _, pieces in turns for piece in pieces if isinstance(piece, Mark)]
    supply = list(pictures) or [mark.picture for mark in marks if mark.picture is not None]
    if not marks and supply:
        first = next((n for n, (role, _) in enumerate(turns) if role == "user"), 0)
        marks = [Mark() for _ in supply]
        turns[first] = (turns[first][0], [*marks, *turns[first][1]])
    order = [number if mark.index is None else mark.index for number, mark in enumerate(marks)]
    if sorted(order) != list(range(len(supply))):
        notes.skipped.add("conversation whose <image> marks and pictures differ in number", where)
        return None
    taken = [folder.take_value(supply[number], None, notes, where) for number in order]
    if None in taken:  # counted where it was found; a conversation without its picture would teach to make it up
        notes.skipped.add("conversation without its picture", where)
        return None
    parts, roles = _parts(turns, [image for image in taken if image is not None], suffix)
    return Document(where, "chat", tuple(parts), {**meta, "turns": roles})


def _problem(turns: Sequence[Turn]) -> str | None:
    """Return why these turns are no conversation to learn from, or None."""
    roles = [role for role, _ in turns if role != "system"]
    texts = [
        "".join(piece for piece in pieces if isinstance(piece, str)).strip()
        for role, pieces in turns
        if role == "assistant"
    ]
    if not any(texts):
        return "conversation without an answer"
    if roles[0] == "assistant":
        return "conversation that starts with the assistant"
    if not all(texts):
        return "conversation with an empty answer"
    if any(role == "assistant" and isinstance(piece, Mark) for role, pieces in turns for piece in pieces):
        return "conversation with a picture in an answer"
    return None


def _parts(turns: Sequence[Turn], pictures: list[Image], suffix: str) -> tuple[list[Part], list[str]]:
    """Return the parts, and the role of each."""
    supply = iter(pictures)
    parts: list[Part] = []
    roles: list[str] = []
    for role, pieces in turns:
        last = max((n for n, piece in enumerate(pieces) if isinstance(piece, str) and piece.strip()), default=-1)
        for number, piece in enumerate(pieces):
            if isinstance(piece, Mark):
                parts.append(next(supply))
            elif text := piece.strip():
                if suffix and role == "user" and number == last:
                    text = f"{text}\n{suffix}"
                parts.append(Text(text, target=role == "assistant"))
            else:
                continue
            roles.append(role)
    return parts, roles
