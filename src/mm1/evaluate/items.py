"""Items: what a task asks, read from a split of a corpus or from the rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from mm1.data.corpus import open_split
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.derive import derived
from mm1.evaluate.options import option_lines, read_options, right_answers
from mm1.evaluate.task import IdTable, ItemSource


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


def open_items(source: ItemSource) -> Items:
    """Open a source.

    Raises:
        UserError: If there is no such corpus, split, file or data set, or it lacks a column.
    """
    if source.corpus is not None:
        return CorpusItems(source)
    from mm1.evaluate.tables import TableItems

    return TableItems(source)


def chosen_items(items: Items, only: str | IdTable | None) -> Iterator[Item]:
    """Yield the items that count, without their pictures: all, or those that a file or a table names.

    Raises:
        UserError: If the file is missing or names an id that isn't there.
    """
    if only is None:
        yield from items.without_pictures()
        return
    wanted, title = read_ids(only)
    missing = set(wanted)
    for item in items.without_pictures():
        if item.id in wanted:
            missing.discard(item.id)
            yield item
    if missing:
        raise UserError(f"{title}: {len(missing)} ids are not in {items.name}, for example '{min(missing)}'")


def read_ids(only: str | IdTable) -> tuple[set[str], str]:
    """Return the ids of a file or a table, and its name.

    Raises:
        UserError: If it isn't there.
    """
    if not isinstance(only, str):
        from mm1.evaluate.tables import column_of_ids

        return column_of_ids(only), only.title
    file = Path(only)
    if not file.is_file():
        raise UserError(f"{file}: no such file of ids: check `only` in the task")
    return set(file.read_text().split()), str(file)


class CorpusItems:
    """The items of a corpus split: one document each."""

    def __init__(self, source: ItemSource) -> None:
        self._split = open_split(str(source.corpus))
        self._source = source
        self.name = source.title
        self.data_hash = self._split.content_hash

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, row: int) -> Item:
        return self._item(self._split[row], row)

    def without_pictures(self) -> Iterator[Item]:
        """Yield all items without their pictures; the split is read once."""
        return iter(self._light)

    @cached_property
    def _light(self) -> list[Item]:
        items = (self._item(document, row) for row, document in enumerate(self._split))
        return [replace(item, images=()) for item in items]

    def _item(self, document: Document, row: int) -> Item:
        if self._source.answers is None:
            parts = (part.text for part in document.parts if isinstance(part, Text) and part.learned)
            return Item(document.id, document.images, document.meta, ("".join(parts).strip(),), row)
        where = f"'{document.id}' of {self.name}"
        fields, answers, options = read_answers(document.meta, self._source, where)
        return Item(document.id, document.images, fields, answers, row, options)


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
