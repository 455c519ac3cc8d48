"""One question of a task with its answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mm1.data.readers.values import as_text, is_missing, kind_of
from mm1.document import Image
from mm1.errors import UserError
from mm1.evaluate.tasks.derive import derived
from mm1.evaluate.tasks.options import answer_words, option_lines, read_options, right_answers
from mm1.evaluate.tasks.task import ItemSource


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its pictures and its reference answers.

    Attributes:
        id: The item's id, unique within its source.
        images: The pictures for `{image}` in the prompt.
        fields: The fields that the prompt may name.
        answers: The reference answers, at least one.
        row: The item's row in the source.
        options: The options of multiple choice, in order.
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

    def ids(self) -> Iterator[str]:
        """Yield the ids of all items in order."""
        ...

    def without_pictures(self, rows: Iterable[int] | None = None) -> Iterator[Item]:
        """Yield the items of these rows, or all; their pictures may be left out, which is faster."""
        ...


def field(item: Item, name: str, source: str) -> Any:
    """Return a field of an item.

    Raises:
        UserError: If the item doesn't have the field; the message names its fields.
    """
    if name not in item.fields:
        known = ", ".join(sorted(item.fields)) or "no fields"
        raise UserError(f"{source}: '{item.id}' has no field '{name}': name one of {known}")
    return item.fields[name]


def as_words(value: Any) -> str:
    """Return a value of a row as a prompt, an answer and an id have it: nothing for a missing one.

    Whole numbers that a table made floats (a column with a null has no others) are whole numbers.
    """
    if is_missing(value):
        return ""
    text = None if isinstance(value, bool) else as_text(value, number=True)
    return str(value) if text is None else text


def group_of(item: Item, name: str | None, source: str) -> Any:
    """Return what items share that have the same value of a field; without a field, all share it.

    Raises:
        UserError: If the item doesn't have the field.
    """
    value = None if name is None else field(item, name, source)
    return repr(value) if isinstance(value, (list, dict)) else value


def read_answers(
    fields: Mapping[str, Any], source: ItemSource, where: str
) -> tuple[Mapping[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Return an item's fields (with `options` as lines, if it has options), its answers and its options.

    The answers of an item with options are the letters and the texts of the right options.

    Args:
        fields: The fields of the document or row.
        source: The source; it says which fields are answers and options.
        where: The item, for messages.

    Raises:
        UserError: If a field is missing or doesn't fit the source.
    """
    if source.derive is not None:
        fields = {**fields, **derived(source.derive, fields, where)}
    values = _values(fields, str(source.answers), where)
    given = () if source.options is None else read_options(fields, source.options, where)
    options = tuple(option for option in given if option is not None)
    if options:
        right = right_answers(values, given, source.answer_is, where)
    else:
        right = tuple(answer_words(value, where) for value in values)
    if source.options is None:
        return fields, right, ()
    return {**fields, "options": option_lines(options)}, right, options


def _values(fields: Mapping[str, Any], name: str, where: str) -> list[Any]:
    column, _, key = name.partition(".")
    if column not in fields:
        known = ", ".join(sorted(fields)) or "no fields"
        raise UserError(f"{where} has no field '{column}' for its answers: name one of {known} in `answers`")
    value = fields[column]
    if key and isinstance(value, Mapping):  # an object of lists, as SQuAD's, or of one answer
        value = _entry(value, key, f"{where}, '{column}'")
    elif key:
        several = value if isinstance(value, list) else [value]
        value = [_entry(one, key, f"{where}, '{column}'") for one in several if not is_missing(one)]
    values = value if isinstance(value, list) else [value]
    values = [one for one in values if not is_missing(one)]
    if all(isinstance(one, str) and not one.strip() for one in values):
        raise UserError(f"{where} has no answer in '{name}', so it can't be scored: choose a split with answers")
    return values


def _entry(value: Any, key: str, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} holds {kind_of(value)} and no object with a key '{key}': correct `answers`")
    if key not in value:
        raise UserError(f"{where} has no key '{key}': name one of {', '.join(map(str, value))} in `answers`")
    return value[key]
