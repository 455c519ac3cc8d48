"""What the readers of conversations share: turns and pictures become a chat document, or it is said why not.

Every turn is one text part without mark-up, with its pictures as parts of their own where their marks stood.
`target` is true for the assistant's texts only. `meta["turns"]` names the role of every part (`system`, `user`,
`assistant`), pictures included: neighbours of the same role make one turn. The chat template is laid over that when
the document is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mm1.data.readers.rows import Place
from mm1.data.readers.values import LeftOutError, index_of, is_given, kind_of, says_something, trimmed
from mm1.document import Document, Image, Part, Text

_MARK = re.compile(r"<image>|<image[ _]?(\d{1,3})>")
_AT_THE_EDGE = re.compile(rf"\A\s*(?:{_MARK.pattern})|(?:{_MARK.pattern})\s*\Z")
_DIFFER = "conversation whose <image> marks and pictures differ in number"


@dataclass(frozen=True, slots=True)
class Mark:
    """The place of a picture in a turn.

    Attributes:
        index: Which of the record's pictures; None: the next one.
        picture: The picture itself, where the turn holds it.
        word: The characters that it is if it is no mark after all; empty: it is one for certain.
    """

    index: int | None = None
    picture: Any = None
    word: str = ""


Turn = tuple[str, list[str | Mark]]
"""The role, and texts and marks in order."""


def marked(text: str) -> list[str | Mark]:
    """Return a text cut at its marks: `<image>`, and `<image 1>` or `<image_1>` for the first picture."""
    pieces: list[str | Mark] = []
    end = 0
    for match in _MARK.finditer(text):
        index = int(match[1]) - 1 if match[1] else None
        pieces += [text[end : match.start()], Mark(index, word=match[0])]
        end = match.end()
    return [*pieces, text[end:]]


def picture_mark(index: object = None, picture: object = None) -> Mark:
    """Return the mark of a part that says it is a picture.

    Raises:
        LeftOutError: If its index is no number.
    """
    number = index_of(index)
    if number is None and is_given(index):
        raise LeftOutError(f"picture in a turn whose index is {kind_of(index)}")
    return Mark(number, picture)


def conversation(
    turns: Sequence[Turn], pictures: Sequence[Any], place: Place, meta: Mapping[str, Any], suffix: str = ""
) -> Document:
    """Return the chat document of a record.

    Pictures without marks come first, before the first question. In a record without pictures `<image>` is text,
    unless it stands where marks do, at the beginning or end of a turn: then a picture is missing.

    Args:
        turns: In order.
        pictures: What the record holds of its pictures (see `PictureFolder.picture`).
        place: Of the record.
        meta: What else is known of it.
        suffix: Put behind every question on a line of its own, as LLaVA-1.5's prompts have it.

    Raises:
        LeftOutError: If it is no conversation to learn from.
    """
    _check(turns)
    order: list[Any] = []
    if pictures or any(type(piece) is Mark for _, pieces in turns for piece in pieces):
        turns, order = _placed([(role, list(pieces)) for role, pieces in turns], pictures)
        if any(role == "assistant" and isinstance(piece, Mark) for role, pieces in turns for piece in pieces):
            raise LeftOutError("conversation with a picture in an answer")
    if turns[-1][0] != "assistant":
        place.change("turns behind the last answer: cut off")
        turns = turns[: max(number for number, (role, _) in enumerate(turns) if role == "assistant") + 1]
        order = order[: sum(isinstance(piece, Mark) for _, pieces in turns for piece in pieces)]
    # A conversation without one of its pictures would teach to make it up.
    parts, roles = _parts(turns, [place.picture(picture) for picture in order], suffix)
    return Document(place.name, "chat", tuple(parts), {**meta, "turns": roles})


def _check(turns: Sequence[Turn]) -> None:
    """Raise `LeftOutError` if these turns are no conversation to learn from."""
    said = [any([isinstance(piece, Mark) or says_something(piece) for piece in pieces]) for _, pieces in turns]
    heard = {role for (role, _), something in zip(turns, said, strict=True) if something}
    silent = {role for (role, _), something in zip(turns, said, strict=True) if not something}
    if "assistant" not in heard:
        raise LeftOutError("conversation without an answer")
    if next(role for role, _ in turns if role != "system") == "assistant":
        raise LeftOutError("conversation that starts with the assistant")
    if "assistant" in silent:
        raise LeftOutError("conversation with an empty answer")
    if "user" in silent:
        raise LeftOutError("conversation with an empty question")


def _placed(turns: list[Turn], pictures: Sequence[Any]) -> tuple[list[Turn], list[Any]]:
    """Return the turns with those marks that stand for pictures, all others text again; and the pictures in order.

    Parts that say that they are pictures are marks for certain. Words are if the numbers fit so: those of questions
    before those of answers.
    """
    every = [(role, mark) for role, pieces in turns for mark in pieces if isinstance(mark, Mark)]
    certain = [mark for _, mark in every if not mark.word]
    asked = [mark for role, mark in every if not mark.word or role != "assistant"]
    own = sum(mark.picture is not None for mark in certain)
    told_twice = own == len(pictures) == len(certain)
    wanted = own if told_twice else own + len(pictures)
    if not wanted:
        _check_no_picture(turns, certain)
        return _with_marks(turns, []), []
    if len(certain) == wanted:
        marks = certain
    elif asked:
        marks = asked
    elif len(every) == wanted:
        marks = [mark for _, mark in every]
    else:
        marks = [Mark() for _ in pictures]
        next(pieces for role, pieces in turns if role == "user")[:0] = marks
    return _with_marks(turns, marks), _ordered(marks, [] if told_twice else pictures)


def _check_no_picture(turns: Sequence[Turn], certain: Sequence[Mark]) -> None:
    """Raise `LeftOutError` if a conversation that has no picture should have one."""
    texts = ["".join(p if isinstance(p, str) else p.word for p in pieces) for role, pieces in turns if role == "user"]
    if certain or any(_AT_THE_EDGE.search(text) for text in texts):
        raise LeftOutError(_DIFFER, "it has no picture")


def _ordered(marks: Sequence[Mark], pictures: Sequence[Any]) -> list[Any]:
    """Return the pictures in the order of their marks."""
    free = [number for number, mark in enumerate(marks) if mark.picture is None]
    if len(free) < len(marks):  # numbers would count those that turns hold, or not
        order = list(range(len(free)))
    else:
        order = [number if marks[number].index is None else marks[number].index or 0 for number in free]
    if sorted(order) != list(range(len(pictures))):
        raise LeftOutError(_DIFFER, f"{len(marks)} and {len(pictures)}")
    supply = (pictures[number] for number in order)
    return [next(supply) if mark.picture is None else mark.picture for mark in marks]


def _with_marks(turns: Sequence[Turn], marks: Sequence[Mark]) -> list[Turn]:
    """Return turns in which only these are marks, and the other words are text where they stand."""
    if len(marks) == sum([isinstance(piece, Mark) for _, pieces in turns for piece in pieces]):
        return list(turns)
    kept = {id(mark) for mark in marks}
    made: list[Turn] = []
    for role, pieces in turns:
        joined: list[str | Mark] = []
        goes_on = False  # whether a text follows a word that was cut out of it
        for piece in pieces:
            if isinstance(piece, Mark) and id(piece) in kept:
                joined.append(piece)
                goes_on = False
                continue
            is_word = isinstance(piece, Mark)
            text = piece.word if isinstance(piece, Mark) else piece
            if (is_word or goes_on) and joined and isinstance(joined[-1], str):
                joined[-1] += text
            else:
                joined.append(text)
            goes_on = is_word
        made.append((role, joined))
    return made


def _parts(turns: Sequence[Turn], pictures: Sequence[Image], suffix: str) -> tuple[list[Part], list[str]]:
    """Return the parts, and the role of each."""
    supply = iter(pictures)
    parts: list[Part] = []
    roles: list[str] = []
    for role, pieces in turns:
        learned = role == "assistant"
        of_turn: list[Part] = [
            next(supply) if isinstance(piece, Mark) else Text(trimmed(piece), learned)
            for piece in pieces
            if isinstance(piece, Mark) or says_something(piece)
        ]
        if suffix and role == "user":
            last = max((n for n, part in enumerate(of_turn) if isinstance(part, Text)), default=len(of_turn))
            asked = [part.text for part in of_turn[last : last + 1] if isinstance(part, Text)]
            of_turn[last : last + 1] = [Text("\n".join([*asked, suffix]), target=False)]
        parts += of_turn
        roles += [role] * len(of_turn)
    return parts, roles
