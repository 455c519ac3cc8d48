"""Items: what a task asks, read from a split of a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mm1.data.corpus import open_split
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.task import ItemSource


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its pictures and its reference answers.

    Attributes:
        id: Unique within its source.
        images: The pictures that the prompt's `{image}` stands for.
        fields: What the prompt may name.
        answers: The reference answers, at least one.
        row: Its row in the source.
    """

    id: str
    images: tuple[Image, ...]
    fields: Mapping[str, Any]
    answers: tuple[str, ...]
    row: int


class Items:
    """The items of a source: a sequence, read row by row.

    Args:
        source: Which split, and where its answers are.

    Raises:
        UserError: If there is no such corpus or split.
    """

    def __init__(self, source: ItemSource) -> None:
        self._split = open_split(source.corpus)
        self._answers = source.answers
        self.name = source.corpus
        self.data_hash = self._split.content_hash

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, row: int) -> Item:
        document = self._split[row]
        return Item(document.id, document.images, document.meta, _answers(document, self._answers, self.name), row)

    def __iter__(self) -> Iterator[Item]:
        return (self[row] for row in range(len(self)))


def field(item: Item, name: str, source: str) -> Any:
    """Return a field of an item.

    Raises:
        UserError: If it isn't there, naming those that are.
    """
    if name not in item.fields:
        there = ", ".join(sorted(item.fields)) or "none"
        raise UserError(f"{source}: '{item.id}' has no field '{name}': it has {there}")
    return item.fields[name]


def _answers(document: Document, name: str | None, source: str) -> tuple[str, ...]:
    if name is None:
        parts = (part.text for part in document.parts if isinstance(part, Text) and part.learned)
        return ("".join(parts).strip(),)
    if name not in document.meta:
        there = ", ".join(sorted(document.meta)) or "none"
        raise UserError(f"{source}: '{document.id}' has no field '{name}' for its answers: it has {there}")
    value = document.meta[name]
    values = value if isinstance(value, list) else [value]
    return tuple(str(answer) for answer in values)
