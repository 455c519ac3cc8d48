r"""Builds prompts from items: a few-shot prompt joins the documents of the shots and of the query.

[Image][" Question: what color is the shape? Short answer:"][" red\n"]      a shot
[Image][" Question: is there a circle? Short answer:"]                      the query

The answer of a shot is a separate text part, as in the documents of pre-training. A chat model gets the same content as
a conversation, one round per shot.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.evaluate.tasks.item import Item, as_words, field
from mm1.evaluate.tasks.task import Task

_MARKS = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class PromptStyle:
    """The form of prompts, independent of the task.

    Attributes:
        chat: Whether prompts are conversations, for models that were fine-tuned on conversations.
        detailed_shots: Number of last shots whose pictures are cut into sub-images, if the model cuts pictures; those
            of the query are cut too, and pictures of earlier shots stay one image each (paper sec. 4: so that 8 shots
            fit). None: all are cut.
    """

    chat: bool = False
    detailed_shots: int | None = None

    def protocol(self) -> dict[str, Any]:
        """Return the style's keys of a result's protocol; none for the plain style."""
        chat = {"prompt_style": "chat"} if self.chat else {}
        return chat if self.detailed_shots is None else {**chat, "detailed_shots": self.detailed_shots}


def build_prompt(task: Task, item: Item, shots: Sequence[Item] = (), style: PromptStyle | None = None) -> Document:
    """Return the prompt of an item: the shots with their pictures and answers, then the query.

    Args:
        task: The task; it has the template, the answer's form and the separator.
        item: The query.
        shots: The shots in order.
        style: The style of the prompt; default: plain.

    Raises:
        UserError: If the template names a field that an item lacks.
    """
    style = style or PromptStyle()
    rounds: list[tuple[list[Part], str]] = []
    for number, shot in enumerate(shots):
        asked = prompt_parts(task, with_option(shot, shot.answers[-1]) if task.continuation else shot, chat=style.chat)
        if style.detailed_shots is not None and number < len(shots) - style.detailed_shots:
            asked = [replace(part, whole=True) if isinstance(part, Image) else part for part in asked]
        rounds.append((asked, shown_answer(task, shot)))
    query = prompt_parts(task, item, chat=style.chat)
    if style.chat:
        return _conversation(item.id, rounds, query)
    parts: list[Part] = []
    for asked, answer in rounds:
        parts += [*asked, Text(answer + task.separator, target=False)]
    return Document(item.id, "interleaved" if shots else "caption", (*parts, *query))


def _conversation(id: str, rounds: Sequence[tuple[list[Part], str]], query: list[Part]) -> Document:
    """Return a conversation that ends where the model answers the last question."""
    parts: list[Part] = []
    roles: list[str] = []
    for asked, answer in [*rounds, (query, "")]:
        for role, part in [*(("user", part) for part in asked), ("assistant", Text(answer, target=False))]:
            stripped = Text(part.text.strip(), target=False) if isinstance(part, Text) else part
            if stripped != Text("", target=False):  # the chat template separates texts
                parts.append(stripped)
                roles.append(role)
    return Document(id, "chat", tuple(parts), {"turns": roles})


def prompt_parts(task: Task, item: Item, *, chat: bool = False) -> list[Part]:
    """Return the task's prompt for one item, without the answer.

    Args:
        task: The task; it has the template.
        item: The item that fills the template.
        chat: Whether to use the template for chat models.

    Raises:
        UserError: If the template names a field that the item lacks, or a field's text marks a picture that it lacks.
    """
    parts: list[Part] = []
    template = task.chat_prompt if chat and task.chat_prompt is not None else task.prompt
    for index, piece in enumerate(_MARKS.split(template)):
        if index % 2 == 0:
            parts.append(Text(piece, target=False))
        elif piece == "image":
            parts += item.images
        else:
            text = as_words(field(item, piece, task.data.title))
            parts += [Text(text, target=False)] if task.picture_mark is None else _inline(task, item, text)
    return _joined(parts)


def _inline(task: Task, item: Item, text: str) -> list[Part]:
    """Return a field's text as parts, with pictures at their marks."""
    pattern = re.escape(str(task.picture_mark)).replace(re.escape("{n}"), r"(\d+)")
    parts: list[Part] = []
    for index, piece in enumerate(re.split(pattern, text)):
        if index % 2 == 0:
            parts.append(Text(piece, target=False))
        elif 1 <= int(piece) <= len(item.images):
            parts.append(item.images[int(piece) - 1])
        else:
            raise UserError(
                f"{task.data.title}: '{item.id}' names picture {piece}, and the item has {len(item.images)} pictures: "
                "correct the text, or the task's picture_mark"
            )
    return parts


def _joined(parts: list[Part]) -> list[Part]:
    """Join consecutive texts, so that they are tokenized as one."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + part.text, target=False)
        elif not isinstance(part, Text) or part.text:
            joined.append(part)
    return joined


def with_option(item: Item, option: str) -> Item:
    """Return an item with one of its options as the field `{option}`."""
    return replace(item, fields={**item.fields, "option": option})


def shown_answer(task: Task, item: Item) -> str:
    """Return the text after the prompt of a shot.

    This is the most frequent reference; ties go to the first. If options are chosen by likelihood, it is the right
    option's text, or the continuation after it.
    """
    if task.likelihood is not None:
        return continuation(task, item, item.answers[-1])
    pieces = _MARKS.split(task.answer)
    return "".join(
        piece
        if index % 2 == 0
        else frequent_answer(item)
        if piece == "answer"
        else as_words(field(item, piece, task.data.title))
        for index, piece in enumerate(pieces)
    )


def continuation(task: Task, item: Item, option: str) -> str:
    """Return the text whose likelihood stands for an option's."""
    if task.continuation is None:
        return task.answer.replace("{answer}", option)
    pieces = _MARKS.split(task.continuation)
    return "".join(
        as_words(field(item, piece, task.data.title)) if index % 2 else piece for index, piece in enumerate(pieces)
    )


def frequent_answer(item: Item) -> str:
    """Return the most frequent reference; ties go to the first."""
    return Counter(item.answers).most_common(1)[0][0]


def as_text(document: Document) -> str:
    """Return a prompt as text with `<image>` marks, for display."""
    return "".join("<image>" if isinstance(part, Image) else part.text for part in document.parts)
