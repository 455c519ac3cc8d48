"""DuckDB for the global steps: with a memory limit; it writes larger data to the job's folder."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from mm1.errors import UserError
from mm1.files import whole_file


def decide_in_database(select: str, target: Path, database: duckdb.DuckDBPyConnection) -> None:
    """Write a query's result, sorted by row and place, to a Parquet file, completely or not at all."""
    with whole_file(target) as partial:
        database.execute(
            f"COPY (SELECT row, place FROM ({select}) ORDER BY row, place) TO '{_quoted(partial)}' "  # noqa: S608
            "(FORMAT parquet, ROW_GROUP_SIZE 100000)"
        )


def open_database(folder: Path, facts: Path, memory: str, workers: int | None) -> duckdb.DuckDBPyConnection:
    """Return a new database in a folder, with a view `facts` over the Parquet files of another folder.

    Args:
        folder: The folder for the database's file and the data that it writes to disk.
        facts: The folder of the Parquet files.
        memory: Memory limit, such as `2GB`; larger data is written to disk.
        workers: Threads; default: one per core.

    Raises:
        UserError: If `memory` is not a size.
    """
    file = folder / "work.duckdb"
    file.unlink(missing_ok=True)
    database = duckdb.connect(str(file))
    try:
        database.execute(f"SET memory_limit = '{memory.replace(chr(39), '')}'")
    except duckdb.Error:
        raise UserError(f"memory '{memory}': write it as a number with a unit, such as 2GB") from None
    database.execute(f"SET temp_directory = '{_quoted(folder / 'spill')}'")
    database.execute("SET preserve_insertion_order = false")
    database.execute("SET enable_progress_bar = false")  # it would overwrite the job's bar
    if workers is not None:
        database.execute(f"SET threads = {workers}")
    folder_as_it_is = re.sub(r"([*?\[])", r"[\1]", _quoted(facts))  # its name may look like a pattern
    database.execute(f"CREATE VIEW facts AS SELECT * FROM read_parquet('{folder_as_it_is}/*.parquet')")  # noqa: S608
    return database


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
