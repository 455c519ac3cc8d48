"""Parquet of captioned pictures: one column of pictures, one of captions, the others kept as meta."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.layout import caption_parts
from mm1.data.readers.parquet import read_rows
from mm1.data.readers.pictures import PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "img")
CAPTION_COLUMNS = ("caption", "text", "txt", "TEXT", "alt_text")


@dataclass(frozen=True)
class Captions(Reader):
    """Captioned pictures in parquet (img2dataset's `parquet` output among them).

    Attributes:
        image: Column of the pictures (bytes, `{"bytes", "path"}` or paths); default: the first there is of
            `image`, `jpg`, `jpeg`, `png`, `webp`, `image_bytes`, `img`.
        caption: Column of the captions; default: the first of `caption`, `text`, `txt`, `TEXT`, `alt_text`.
        pictures: Folder that paths of pictures are told from; default: the folder of the sources.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    image: str = ""
    caption: str = ""
    pictures: str = ""

    @property
    def columns(self) -> list[str]:
        """The columns that must be there, as `check_columns` takes them."""
        return [self.image or "|".join(IMAGE_COLUMNS), self.caption or "|".join(CAPTION_COLUMNS)]

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a caption document for every row."""
        folder = PictureFolder(self.pictures or shard.root)
        for file in shard.files:
            for where, row in read_rows(file, shard.name(file), self.columns, notes):
                document = self.caption_of_row(row, where, folder, notes)
                if document is not None:
                    yield document

    def caption_of_row(
        self, row: Mapping[str, Any], where: str, folder: PictureFolder, notes: Notes
    ) -> Document | None:
        """Return the document of a row, or count why there is none and return None."""
        image, caption = (next(c for c in choice.split("|") if c in row) for choice in self.columns)
        if not isinstance(row[caption], str) or not row[caption].strip():
            notes.skipped.add("row without a caption", where)
            return None
        address = row.get("url")
        source = address if isinstance(address, str) else None
        picture = folder.take_value(row[image], source, notes, where)
        if picture is None:
            return None
        meta = {
            name: value for name, value in row.items() if name not in (image, caption, "exif") and value is not None
        }
        return Document(where, "caption", caption_parts(picture, row[caption]), meta)
