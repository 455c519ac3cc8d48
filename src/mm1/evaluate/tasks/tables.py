"""Items from tables: parquet and JSONL files, and datasets of the Hugging Face Hub."""

from __future__ import annotations

import glob
import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from mm1.data.readers.lines import is_json
from mm1.data.readers.values import is_missing
from mm1.document import Image
from mm1.errors import UserError, in_one_line
from mm1.evaluate.tasks.item import Item, as_words, read_answers
from mm1.evaluate.tasks.json_table import JsonTable, read_json_table
from mm1.evaluate.tasks.task import IdTable, ItemSource
from mm1.files import hash_files
from mm1.nearest import did_you_mean, nearest_path

Table = Any
"""A `Dataset`, of whose types mypy knows nothing, or a `JsonTable`."""
FolderOf = Callable[[int], Path]
"""From a row of a table to the folder that its paths are told from: that of its file."""

_READ_VERSION = "2"  # raised when the items of the same table become others, so that their results are made again


class TableItems:
    """The items of a table, one per row; pictures stay encoded.

    Args:
        source: The source; it names the table and its columns.

    Raises:
        UserError: If the table can't be opened or lacks a column.
    """

    def __init__(self, source: ItemSource) -> None:
        self._source = source
        self.name = source.title
        self._table, self.data_hash, self._folder_of = _open(source, source.name)
        self._rows: Sequence[int] = range(len(self._table))  # of the table as it was read
        self._columns = [source.images] if isinstance(source.images, str) else list(source.images)
        self._picture_rows: dict[Any, int] | None = None
        answers = [] if source.derive else [str(source.answers).partition(".")[0]]
        needed = [*answers, *([source.id] if source.id else [])]
        if source.pictures is None:
            needed += self._columns
        else:
            self._open_pictures(source)
            needed.append(source.pictures.key)
        self._check([*needed, *source.where], self._table, self.name)
        if source.where:
            columns = self._table.select_columns(list(source.where))
            self._rows = [row for row, values in enumerate(columns) if values == source.where]
            self._table = self._table.select(self._rows)
        pictures = [name for name in self._columns if name in self._table.column_names]
        self._light = self._table.remove_columns(pictures)

    def _open_pictures(self, source: ItemSource) -> None:
        pictures = source.pictures
        if pictures is None:
            return
        update = {"file": pictures.file} if pictures.file else {}
        self._pictures, other_hash, self._picture_folder_of = _open(source.model_copy(update=update), pictures.name)
        self._check([pictures.id, pictures.column], self._pictures, "the table of pictures")
        self._picture_rows = {name: row for row, name in enumerate(self._pictures[pictures.id])}
        self.data_hash = hashlib.blake2b((self.data_hash + other_hash).encode(), digest_size=16).hexdigest()

    def _check(self, needed: list[str], table: Table, name: str) -> None:
        missing = [column for column in needed if column not in table.column_names]
        if missing:
            known = did_you_mean(missing[0], table.column_names)
            raise UserError(f"{name}: there is no column '{missing[0]}': {known}")

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> Item:
        return self._item(self._table[row], row)

    def ids(self) -> Iterator[str]:
        """Yield the ids of all items in order."""
        values = self._table[self._source.id] if self._source.id else range(len(self))
        return (self._id(value, row) for row, value in enumerate(values))

    def without_pictures(self, rows: Iterable[int] | None = None) -> Iterator[Item]:
        """Yield the items of these rows, or all, without their pictures."""
        for row, values in enumerate(self._light) if rows is None else ((row, self._light[row]) for row in rows):
            yield self._item(values, row)

    def _item(self, values: Mapping[str, Any], row: int) -> Item:
        name = self._id(values[self._source.id], row) if self._source.id else str(row)
        own = {key: value for key, value in values.items() if key not in self._columns}
        fields, answers, options = read_answers(own, self._source, f"row {row} of {self.name}")
        folder = self._folder_of(self._rows[row])
        images = tuple(image for key in self._columns if key in values for image in _images(values[key], folder))
        if self._picture_rows is not None and self._source.pictures is not None:
            images = self._picture(values[self._source.pictures.key], row)
        return Item(name, images, fields, answers, row, options)

    def _id(self, value: Any, row: int) -> str:
        if is_missing(value):
            raise UserError(f"row {row} of {self.name}: its id '{self._source.id}' is missing: give every row one")
        return as_words(value)

    def _picture(self, key: Any, row: int) -> tuple[Image, ...]:
        pictures = self._source.pictures
        if pictures is None or self._picture_rows is None or key not in self._picture_rows:
            raise UserError(
                f"row {row} of {self.name}: its picture '{key}' is not in the table of pictures: check `pictures` in "
                "the task"
            )
        number = self._picture_rows[key]
        return _images(self._pictures[number][pictures.column], self._picture_folder_of(number))


def _open(source: ItemSource, name: str | None) -> tuple[Table, str, FolderOf]:
    """Return a table with encoded pictures, a hash of its content, and what its paths are relative to."""
    if source.file is not None:
        files = _files(source.file)
        table, ends = _read(files)
        folders = [Path(file).parent for file in files]
        digest = hash_files(map(Path, files), names=False)
        return table, _versioned(digest), lambda row: folders[bisect_right(ends, row)]
    hub = _load(str(source.hub), name, source.split, source.title)
    return _undecoded(hub), _versioned(str(hub._fingerprint)), lambda row: Path()


def _versioned(digest: str) -> str:
    return hashlib.blake2b(f"{digest}/{_READ_VERSION}".encode(), digest_size=16).hexdigest()


def column_of_ids(source: IdTable) -> set[str]:
    """Return the ids in a column of a table.

    Raises:
        UserError: If the table can't be opened or lacks the column.
    """
    title = source.title
    table: Table
    if source.file:
        table, _ = _read(_files(source.file))
    else:
        table = _load(str(source.hub), source.name, source.split, title)
    if source.column not in table.column_names:
        raise UserError(
            f"{title}: there is no column '{source.column}': {did_you_mean(source.column, table.column_names)}"
        )
    return {as_words(value) for value in table[source.column] if not is_missing(value)}


def _files(pattern: str) -> list[str]:
    """Return the files of a pattern; a name with brackets that is there is a name."""
    files = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern)))
    if not files:
        raise UserError(f"{pattern}: no such file: check the path{nearest_path(pattern)}")
    return files


def _load(hub: str, name: str | None, split: str | None, title: str) -> Dataset:
    """Return a split of a Hub dataset."""
    try:
        table = datasets.load_dataset(hub, name, split=split)
    except Exception as error:  # the library raises many types for a missing name, split, access or network
        reason = in_one_line(error)
        raise UserError(
            f"{title}: the Hub dataset can't be loaded ({reason}): check its name, split and your access, or give a "
            "local `file`"
        ) from None
    if not isinstance(table, Dataset):
        raise UserError(f"{title}: the dataset has several splits: name one with `split`")
    return table


def _read(files: list[str]) -> tuple[Table, list[int]]:
    """Return the rows of files as one table with encoded pictures, and where the rows of each file end.

    Raises:
        UserError: If they are of different formats, or one can't be read.
    """
    tables: list[Any]
    if all(file.lower().endswith(".parquet") for file in files):
        tables = [_read_parquet(file) for file in files]
        ends = list(accumulate(map(len, tables)))
        return _undecoded(_joined(tables, files)), ends
    if all(map(is_json, files)):
        tables = [read_json_table(file) for file in files]
        return JsonTable([row for table in tables for row in table.rows]), list(accumulate(map(len, tables)))
    raise UserError(f"{files[0]}: not a table of items: name files that all end in .parquet, or all in .jsonl")


def _read_parquet(file: str) -> Dataset:
    try:
        return Dataset.from_parquet(file)
    except Exception as error:  # pyarrow and datasets raise many types for a damaged file
        reason = in_one_line(error.__cause__ or error)
        raise UserError(f"{file}: the table can't be read ({reason}): download or write it again") from None


def _joined(tables: list[Dataset], files: Sequence[str]) -> Dataset:
    """Return tables of the same columns as one.

    Raises:
        UserError: If their columns differ.
    """
    for table, file in zip(tables, files, strict=True):
        if table.features != tables[0].features:
            ours, theirs = ({f"{k} ({v})" for k, v in one.features.items()} for one in (table, tables[0]))
            differ = ", ".join(sorted(ours ^ theirs))[:300]
            raise UserError(f"{file}: it has other columns than {files[0]} ({differ}): write both with the same ones")
    return datasets.concatenate_datasets(tables)


def _undecoded(table: Dataset) -> Dataset:
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            table = table.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return table


def _images(value: Any, folder: Path) -> tuple[Image, ...]:
    """Return the pictures of a cell: bytes, a path, `{bytes, path}`, a list of these, or nothing."""
    if is_missing(value) or value == "":
        return ()
    if isinstance(value, list):
        return tuple(image for entry in value for image in _images(entry, folder))
    if isinstance(value, dict):
        return (Image(value["bytes"], value.get("path")),) if value.get("bytes") else _images(value.get("path"), folder)
    if isinstance(value, bytes):
        return (Image(value),)
    return (Image(path=str(folder / str(value))),)
