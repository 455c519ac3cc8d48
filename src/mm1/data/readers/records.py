"""Rows of a file that may be parquet or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm1.data.readers.lines import read_json_records
from mm1.data.readers.parquet import is_parquet, read_rows
from mm1.data.readers.reader import Notes


def read_records(file: str, name: str, columns: list[str], notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `name:number` and every row of a parquet file, JSON array or JSON Lines file.

    Args:
        file: The file.
        name: What to call it.
        columns: Those that a parquet file must have; `a|b` stands for any of several.
        notes: Where damage is counted.

    Raises:
        UserError: If a column of a parquet file is missing.
    """
    if is_parquet(file):
        return read_rows(file, name, columns, notes)
    return read_json_records(file, name, notes)
