"""Parquet with the columns of OBELICS: `images`, `texts`, `metadata`, `general_metadata`.

`images` and `texts` are lists of the same length; at every place one of the two is null (arXiv 2306.16527 and its
dataset card). Pictures are bytes, `{"bytes", "path"}`, or paths below the folder of pictures; the original has web
addresses, which are fetched if that is asked for. `metadata` and `general_metadata` are JSON texts; the former is a
list with one entry for every place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.fetching import with_pictures
from mm1.data.readers.layout import page_parts, parse_json
from mm1.data.readers.parquet import read_rows
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError, as_text, is_missing, is_picture, kind_of
from mm1.document import Document, Image
from mm1.fetch.web import Web

COLUMNS = ["images", "texts"]


@dataclass(frozen=True)
class Obelics(Reader):
    """Interleaved pages in parquet.

    Attributes:
        pictures: The folder of pictures, where they don't lie beside the file that names them.
        fetch: Whether pictures at web addresses are fetched.
        own_host: `HOST:PORT` of a server, such as a mirror, that may be asked although it is not on the open net.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    pictures: str = ""
    fetch: bool = False
    own_host: str = ""

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield an interleaved document for every row."""
        for file in shard.files:
            name = shard.name(file)
            rows = read_rows(file, name, COLUMNS, notes)
            if self.fetch:
                rows = with_pictures(rows, Web(self.own_host.split()), shard.beside, name)
            yield from documents_of(rows, page_of_row, notes, PictureFolder.beside(file, shard.root, self.pictures))


def page_of_row(row: Mapping[str, Any], place: Place) -> Document:
    """Return the document of a row.

    Raises:
        LeftOutError: If it is no page.
    """
    pictures, texts = row.get("images"), row.get("texts")
    for name, values in (("images", pictures), ("texts", texts)):
        if not isinstance(values, list):
            raise LeftOutError(f"{name} of a page that are {kind_of(values)}")
    assert isinstance(pictures, list)
    assert isinstance(texts, list)
    if len(pictures) != len(texts):
        raise LeftOutError("images and texts of different numbers", f"{len(pictures)} and {len(texts)}")
    details = _json_column(row, "metadata", list, place) or []
    items: list[str | Image] = []
    for number, (picture, value) in enumerate(zip(pictures, texts, strict=True)):
        if is_picture(picture):
            detail = details[number] if number < len(details) and isinstance(details[number], dict) else {}
            address = detail.get("src")
            taken = place.picture_or_loss(picture, address if isinstance(address, str) else None, f"[{number}]")
            if taken is not None:
                items.append(taken)
        text = as_text(value)
        if text is not None:
            items.append(text)
        elif not is_missing(value):
            place.lose(f"text of a page that is {kind_of(value)}", f"[{number}]")
    parts = page_parts(items)
    if not parts:
        raise LeftOutError("page without text and usable pictures")
    return Document(place.name, "interleaved", parts, _json_column(row, "general_metadata", dict, place) or {})


def _json_column(row: Mapping[str, Any], column: str, kind: type, place: Place) -> Any:
    value = row.get(column)
    if isinstance(value, (str, bytes)):
        try:
            value = parse_json(value)
        except ValueError:
            value = ()
    if value is not None and not isinstance(value, kind):
        place.change(f"broken {column}: row taken without it")
        return None
    return value
