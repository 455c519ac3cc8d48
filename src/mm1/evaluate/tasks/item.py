"""One question of a task, and what its answers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mm1.document import Image
from mm1.errors import UserError
from mm1.evaluate.tasks.derive import derived
from mm1.evaluate.tasks.options import option_lines, read_options, right_answers
from mm1.evaluate.tasks.task import ItemSource


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its pictures and its reference answers.

    Attributes:
        id: Unique within its source.
        images: The pictures that the prompt's `{image}` stands for.
        fields: What the prompt may name.
        answers: The reference answers, at least one.
        row: Its row in the source.
        options: Of multiple choice, in order.
    """

    id: str
    images: tuple[Image, ...]
    fields: Mapping[str, Any]
    answers: tuple[str, ...]
    row: int
    options: tuple[str, ...] = ()


class Items(Protocol):
    """The items of a source, read row by row."""

    name: str
    data_hash: str

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Item: ...

    def without_pictures(self) -> Iterator[Item]:
        """Yield all items; their pictures may be left out, which is faster."""
        ...


def field(item: Item, name: str, source: str) -> Any:
    """Return a field of an item.

    Raises:
        UserError: If it isn't there, naming those that are.
    """
    if name not in item.fields:
        there = ", ".join(sorted(item.fields)) or "none"
        raise UserError(f"{source}: '{item.id}' has no field '{name}': it has {there}")
    return item.fields[name]


def read_answers(
    fields: Mapping[str, Any], source: ItemSource, where: str
) -> tuple[Mapping[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Return an item's fields (with `options` as lines, where it has options), its answers and its options.

    The answers of an item with options are the right ones' letters and their words.

    Args:
        fields: Of the document or row.
        source: Says which of them are answers and options.
        where: The item, for messages.

    Raises:
        UserError: If a field is missing or not as the source says.
    """
    if source.derive is not None:
        fields = {**fields, **derived(source.derive, fields, where)}
    values = _values(fields, str(source.answers), where)
    if source.options is None:
        return fields, tuple(str(value) for value in values), ()
    options = read_options(fields, source.options, where)
    right = right_answers(values, options, source.answer_is, where) if options else tuple(map(str, values))
    return {**fields, "options": option_lines(options)}, right, options


def _values(fields: Mapping[str, Any], name: str, where: str) -> list[Any]:
    column, _, key = name.partition(".")
    if column not in fields:
        there = ", ".join(sorted(fields)) or "none"
        raise UserError(f"{where} has no field '{column}' for its answers: it has {there}")
    value = fields[column]
    if key:
        value = [entry[key] for entry in value] if isinstance(value, list) else value[key]
    values = value if isinstance(value, list) else [value]
    values = [entry for entry in values if entry is not None]
    if not values:
        raise UserError(f"{where} has no answer in '{name}': a split without answers can't be scored")
    return values
