r"""From items to prompts: a few-shot prompt is the shots' documents and the query's, put together.

[Image][" Question: what color is the shape? Short answer:"][" red\n"]      a shot
[Image][" Question: is there a circle? Short answer:"]                      the query

The answer of a shot is a text part of its own, as in the documents of pre-training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.evaluate.items import Item, field
from mm1.evaluate.task import Task

_MARKS = re.compile(r"\{(\w+)\}")


def build_prompt(task: Task, item: Item, shots: Sequence[Item] = ()) -> Document:
    """Return the prompt of an item: the shots with their pictures and answers, then the query.

    Args:
        task: Gives the template, the answer's form and the separator.
        item: The query.
        shots: In the order in which they are shown.

    Raises:
        UserError: If the template names a field that an item lacks.
    """
    parts: list[Part] = []
    for shot in shots:
        parts += render(task, with_option(shot, shot.answers[-1]) if task.continuation else shot)
        parts.append(Text(shown_answer(task, shot) + task.separator, learned=False))
    parts += render(task, item)
    return Document(item.id, "interleaved" if shots else "caption", tuple(parts))


def render(task: Task, item: Item) -> list[Part]:
    """Return the task's prompt for one item, without answer.

    Raises:
        UserError: If the template names a field, or a field's text a picture, that the item lacks.
    """
    parts: list[Part] = []
    for index, piece in enumerate(_MARKS.split(task.prompt)):
        if index % 2 == 0:
            parts.append(Text(piece, learned=False))
        elif piece == "image":
            parts += item.images
        else:
            text = str(field(item, piece, task.data.title))
            parts += [Text(text, learned=False)] if task.picture_mark is None else _inline(task, item, text)
    return _joined(parts)


def _inline(task: Task, item: Item, text: str) -> list[Part]:
    """Put the pictures where a field's text has their marks."""
    pattern = re.escape(str(task.picture_mark)).replace(re.escape("{n}"), r"(\d+)")
    parts: list[Part] = []
    for index, piece in enumerate(re.split(pattern, text)):
        if index % 2 == 0:
            parts.append(Text(piece, learned=False))
        elif 1 <= int(piece) <= len(item.images):
            parts.append(item.images[int(piece) - 1])
        else:
            raise UserError(f"{task.data.title}: '{item.id}' names picture {piece} and has {len(item.images)} pictures")
    return parts


def _joined(parts: list[Part]) -> list[Part]:
    """Join texts that follow each other, so that they are tokenized as one."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + part.text, learned=False)
        elif not isinstance(part, Text) or part.text:
            joined.append(part)
    return joined


def with_option(item: Item, option: str) -> Item:
    """Return an item whose prompt shows one of its options as `{option}`."""
    return replace(item, fields={**item.fields, "option": option})


def shown_answer(task: Task, item: Item) -> str:
    """Return what follows the prompt of a shot.

    That is the most frequent reference, the first of equals; for options chosen by likelihood the right one's
    words, or the continuation after it.
    """
    if task.likelihood is not None:
        return continuation(task, item, item.answers[-1])
    return task.answer.replace("{answer}", frequent_answer(item))


def continuation(task: Task, item: Item, option: str) -> str:
    """Return the text whose likelihood is that of an option."""
    if task.continuation is None:
        return task.answer.replace("{answer}", option)
    pieces = _MARKS.split(task.continuation)
    return "".join(
        str(field(item, piece, task.data.title)) if index % 2 else piece for index, piece in enumerate(pieces)
    )


def frequent_answer(item: Item) -> str:
    """Return the most frequent reference, the first of equals."""
    return Counter(item.answers).most_common(1)[0][0]


def as_text(document: Document) -> str:
    """Return a prompt as text with `<image>` marks, for people to read."""
    return "".join("<image>" if isinstance(part, Image) else part.text for part in document.parts)
