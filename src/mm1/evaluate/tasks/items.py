"""The items of a task, read from a split of a corpus or from the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mm1.data.corpus import open_split
from mm1.document import Document, Text
from mm1.errors import UserError
from mm1.evaluate.tasks.item import Item, Items, read_answers
from mm1.evaluate.tasks.task import IdTable, ItemSource
from mm1.nearest import nearest_path


def open_items(source: ItemSource) -> Items:
    """Open a source.

    Raises:
        UserError: If the corpus, split, file or dataset doesn't exist, or lacks a column.
    """
    if source.corpus is not None:
        return CorpusItems(source)
    from mm1.evaluate.tasks.tables import TableItems

    return TableItems(source)


def chosen_items(items: Items, only: str | IdTable | None) -> Iterator[Item]:
    """Yield the items that count, without their pictures: all, or those that a file or a table names.

    Raises:
        UserError: If the file is missing or names an unknown id.
    """
    return items.without_pictures(None if only is None else [row for _, row in chosen_rows(items, only)])


def chosen_rows(items: Items, only: str | IdTable | None) -> Iterator[tuple[str, int]]:
    """Yield the ids and the rows of the items that count, of which no more is read; see `chosen_items`."""
    rows = zip(items.ids(), range(len(items)), strict=True)
    if only is None:
        yield from rows
        return
    ids, title = read_ids(only)
    missing = set(ids)
    for id, row in rows:
        if id in ids:
            missing.discard(id)
            yield id, row
    if missing:
        raise UserError(
            f"{title}: {len(missing)} ids are not in {items.name}, for example '{min(missing)}': remove them, or check "
            "`id` in the task"
        )


def read_ids(only: str | IdTable) -> tuple[set[str], str]:
    """Return the ids of a file or a table, and its name.

    Raises:
        UserError: If the file or the table doesn't exist or can't be read.
    """
    if not isinstance(only, str):
        from mm1.evaluate.tasks.tables import column_of_ids

        return column_of_ids(only), only.title
    file = Path(only)
    if not file.is_file():
        raise UserError(f"{file}: no such file of ids: check `only` in the task{nearest_path(file)}")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: the ids can't be read ({error}): write one on each line, in UTF-8") from None
    return {line.strip() for line in lines if line.strip()}, str(file)


class CorpusItems:
    """The items of a corpus's split, one per document."""

    def __init__(self, source: ItemSource) -> None:
        self._split = open_split(str(source.corpus))
        self._source = source
        self.name = source.title
        self.data_hash = self._split.content_hash

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, row: int) -> Item:
        return self._item(self._split[row], row)

    def ids(self) -> Iterator[str]:
        """Yield the ids of all items in order."""
        return self._split.ids()

    def without_pictures(self, rows: Iterable[int] | None = None) -> Iterator[Item]:
        """Yield the items of these rows, or all, without their pictures, which are not read."""
        if rows is None:
            numbers: Iterable[int] = range(len(self))
            documents = self._split.without_pictures()
        else:
            numbers = list(rows)
            documents = map(self._split.row_without_pictures, numbers)
        return (replace(self._item(document, row), images=()) for row, document in zip(numbers, documents, strict=True))

    def _item(self, document: Document, row: int) -> Item:
        if self._source.answers is None:
            parts = (part.text for part in document.parts if isinstance(part, Text) and part.target)
            return Item(document.id, document.images, document.meta, ("".join(parts).strip(),), row)
        where = f"'{document.id}' of {self.name}"
        fields, answers, options = read_answers(document.meta, self._source, where)
        return Item(document.id, document.images, fields, answers, row, options)
