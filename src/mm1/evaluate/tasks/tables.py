"""Items from tables: parquet and JSONL files, and datasets of the Hugging Face Hub."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from mm1.document import Image
from mm1.errors import UserError
from mm1.evaluate.tasks.item import Item, read_answers
from mm1.evaluate.tasks.task import IdTable, ItemSource
from mm1.files import hash_files
from mm1.nearest import did_you_mean, nearest_path


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
        self._table, self.data_hash, self._folder = _open(source, source.name)
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
            self._table = self._table.select([row for row, values in enumerate(columns) if values == source.where])
        pictures = [name for name in self._columns if name in self._table.column_names]
        self._light = self._table.remove_columns(pictures)

    def _open_pictures(self, source: ItemSource) -> None:
        pictures = source.pictures
        if pictures is None:
            return
        update = {"file": pictures.file} if pictures.file else {}
        self._pictures, other_hash, self._folder = _open(source.model_copy(update=update), pictures.name)
        self._check([pictures.id, pictures.column], self._pictures, "the table of pictures")
        self._picture_rows = {name: row for row, name in enumerate(self._pictures[pictures.id])}
        self.data_hash = hashlib.blake2b((self.data_hash + other_hash).encode(), digest_size=16).hexdigest()

    def _check(self, needed: list[str], table: Dataset, name: str) -> None:
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
        return map(str, self._table[self._source.id] if self._source.id else range(len(self)))

    def without_pictures(self, rows: Iterable[int] | None = None) -> Iterator[Item]:
        """Yield the items of these rows, or all, without their pictures."""
        for row, values in enumerate(self._light) if rows is None else ((row, self._light[row]) for row in rows):
            yield self._item(values, row)

    def _item(self, values: Mapping[str, Any], row: int) -> Item:
        name = str(values[self._source.id]) if self._source.id else str(row)
        own = {key: value for key, value in values.items() if key not in self._columns}
        fields, answers, options = read_answers(own, self._source, f"row {row} of {self.name}")
        images = tuple(image for key in self._columns if key in values for image in _images(values[key], self._folder))
        if self._picture_rows is not None and self._source.pictures is not None:
            images = self._picture(values[self._source.pictures.key], row)
        return Item(name, images, fields, answers, row, options)

    def _picture(self, key: Any, row: int) -> tuple[Image, ...]:
        pictures = self._source.pictures
        if pictures is None or self._picture_rows is None or key not in self._picture_rows:
            raise UserError(
                f"row {row} of {self.name}: its picture '{key}' is not in the table of pictures: check `pictures` in "
                "the task"
            )
        return _images(self._pictures[self._picture_rows[key]][pictures.column], self._folder)


def _open(source: ItemSource, name: str | None) -> tuple[Dataset, str, Path]:
    """Return a table with encoded pictures, a hash of its content, and the folder that its paths are relative to."""
    if source.file is not None:
        files = _files(source.file)
        return _undecoded(_read(files)), hash_files(map(Path, files), names=False), Path(files[0]).parent
    table = _load(str(source.hub), name, source.split, source.title)
    return _undecoded(table), str(table._fingerprint), Path()


def column_of_ids(source: IdTable) -> set[str]:
    """Return the ids in a column of a table.

    Raises:
        UserError: If the table can't be opened or lacks the column.
    """
    title = source.title
    table = _read(_files(source.file)) if source.file else _load(str(source.hub), source.name, source.split, title)
    if source.column not in table.column_names:
        raise UserError(
            f"{title}: there is no column '{source.column}': {did_you_mean(source.column, table.column_names)}"
        )
    return {str(value) for value in table[source.column]}


def _files(pattern: str) -> list[str]:
    files = sorted(glob.glob(pattern))
    if not files:
        raise UserError(f"{pattern}: no such file: check the path{nearest_path(pattern)}")
    return files


def _load(hub: str, name: str | None, split: str | None, title: str) -> Dataset:
    """Return a split of a Hub dataset."""
    try:
        table = datasets.load_dataset(hub, name, split=split)
    except Exception as error:  # the library raises many types for a missing name, split, access or network
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{title}: the Hub dataset can't be loaded ({reason}): check its name, split and your access, or give a "
            "local `file`"
        ) from None
    if not isinstance(table, Dataset):
        raise UserError(f"{title}: the dataset has several splits: name one with `split`")
    return table


def _read(files: list[str]) -> Dataset:
    suffixes = {Path(file).suffix for file in files}
    try:
        if suffixes == {".parquet"}:
            return Dataset.from_parquet(files)
        if suffixes <= {".jsonl", ".json"}:
            return Dataset.from_json(files)
    except Exception as error:  # pyarrow and datasets raise many types for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{files[0]}: the table can't be read ({reason}): download or write it again") from None
    raise UserError(f"{files[0]}: not a table of items: name files that all end in .parquet, or all in .jsonl")


def _undecoded(table: Dataset) -> Dataset:
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            table = table.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return table


def _images(value: Any, folder: Path) -> tuple[Image, ...]:
    """Return the pictures of a cell: bytes, a path, `{bytes, path}`, a list of these, or nothing."""
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(image for entry in value for image in _images(entry, folder))
    if isinstance(value, dict):
        return (Image(value["bytes"], value.get("path")),) if value.get("bytes") else _images(value.get("path"), folder)
    if isinstance(value, bytes):
        return (Image(value),)
    return (Image(path=str(folder / str(value))),)
