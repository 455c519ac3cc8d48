"""Items in JSON Lines and JSON arrays: every value is what the file says.

Libraries of tables find a type for a column, and what has another one is changed to fit: a text that looks like a date
becomes one, and 3 beside 2.5 becomes 3.0. Here a row stays as it is, in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from mm1.data.readers.lines import read_json_records
from mm1.data.readers.reader import Notes
from mm1.errors import UserError


class JsonTable:
    """A table of rows, with as much of `datasets.Dataset` as items need.

    Args:
        rows: The rows. One may lack a column that others have: it is null there.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(dict.fromkeys(name for row in rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | str) -> dict[str, Any] | list[Any]:
        """Return a row, or a column."""
        if isinstance(key, str):
            return [row.get(key) for row in self.rows]
        return {name: self.rows[key].get(name) for name in self.column_names}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def select(self, indices: Iterable[int]) -> JsonTable:
        """Return a table of these rows, and of all columns."""
        return self._with([self.rows[index] for index in indices], self.column_names)

    def select_columns(self, names: Sequence[str]) -> JsonTable:
        """Return a table of these columns."""
        return self._with(self.rows, names)

    def remove_columns(self, names: Sequence[str]) -> JsonTable:
        """Return a table of the other columns."""
        return self._with(self.rows, [name for name in self.column_names if name not in names])

    @staticmethod
    def _with(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> JsonTable:
        table = JsonTable(())
        table.rows, table.column_names = rows, list(names)
        return table


def read_json_table(file: str) -> JsonTable:
    """Read a file of JSON Lines or a JSON array.

    Raises:
        UserError: If a line or the file can't be read, or there is none; the message names it. No row is left out.
    """
    notes = Notes()
    rows = []
    for where, row in read_json_records(file, file, notes):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{where}: a text has half of a surrogate pair, which is no character: correct it"
            ) from None
        rows.append(row)
    for kind in (notes.skipped, notes.changed):
        for reason, examples in kind.examples.items():
            raise UserError(f"{examples[0]}: {reason}; the items of a task are all read: put it right, or remove it")
    return JsonTable(rows)
