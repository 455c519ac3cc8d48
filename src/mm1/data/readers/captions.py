"""Parquet of captioned pictures: one column of pictures, one of captions, the others kept as meta."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.layout import caption_parts
from mm1.data.readers.parquet import read_rows
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError, as_text, kind_of, plain_python, text_of
from mm1.document import Document
from mm1.errors import UserError

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "img")
CAPTION_COLUMNS = ("caption", "text", "txt", "TEXT", "alt_text")
CAPTION_LISTS = ("leave-out", "first", "all", "random")
_MARK = "<image>"


@dataclass(frozen=True)
class CaptionReader(Reader):
    """What the readers of captioned pictures share.

    Attributes:
        caption_list: What becomes of a list of captions: `leave-out` (and count), its `first`, `all` as a document
            each, or one at `random`.
        seed: Of what is drawn at random.
    """

    caption_list: str = "leave-out"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.caption_list not in CAPTION_LISTS:
            raise UserError(f"caption_list is '{self.caption_list}': choose one of {', '.join(CAPTION_LISTS)}")

    def captioned(
        self, picture: object, source: str | None, captions: object, place: Place, meta: Mapping[str, Any]
    ) -> list[Document]:
        """Return the documents of a picture with its caption, or with a list of them.

        A mark `<image>` before or behind a caption stands for the picture and goes.

        Args:
            picture: What the record holds of it (see `PictureFolder.picture`).
            source: Its address, if there is one beside it.
            captions: What the record holds of them.
            place: Of the record.
            meta: What else is known of it.

        Raises:
            LeftOutError: If there is no text for a caption, or no picture.
        """
        texts = self._chosen(captions, place)
        image = place.picture(picture, source)
        documents = []
        for number, caption in enumerate(texts):
            text = caption.strip()
            bare = text.removeprefix(_MARK).removesuffix(_MARK).strip()
            if not bare:
                raise LeftOutError("caption that is empty")
            if bare != text:
                place.change(f"{_MARK} before or behind a caption: it stands for the picture")
            name = place.name if number == 0 else f"{place.name}#{number + 1}"
            documents.append(Document(name, "caption", caption_parts(image, bare), meta))
        return documents

    def _chosen(self, captions: object, place: Place) -> list[str]:
        """Return the captions that are taken, one if there is no list of them."""
        captions = plain_python(captions)
        if not isinstance(captions, (list, tuple)) or not captions:
            return [text_of(captions, "caption")]
        if self.caption_list == "leave-out":
            raise LeftOutError("caption that is a list (--set caption_list=first, all or random takes from it)")
        texts = [text for caption in captions if (text := as_text(caption)) and text.strip()]
        if not texts:
            raise LeftOutError(f"list of captions without a text: {kind_of(captions[0])} in it")
        if self.caption_list == "all":
            for _ in range(len(captions) - len(texts)):
                place.notes.skipped.add("caption of a list that is no text", place.name)
            return texts
        return [texts[0] if self.caption_list == "first" else random.Random(f"{self.seed}/{place.name}").choice(texts)]  # noqa: S311


@dataclass(frozen=True)
class Captions(CaptionReader):
    """Captioned pictures in parquet (img2dataset's `parquet` output among them).

    Attributes:
        image: Column of the pictures (bytes, `{"bytes", "path"}` or paths); default: the first there is of
            `image`, `jpg`, `jpeg`, `png`, `webp`, `image_bytes`, `img`.
        caption: Column of the captions; default: the first of `caption`, `text`, `txt`, `TEXT`, `alt_text`.
        pictures: The folder of pictures, where they don't lie beside the file that names them.
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
        for file in shard.files:
            rows = read_rows(file, shard.name(file), self.columns, notes)
            pictures = PictureFolder.beside(file, shard.root, self.pictures)
            yield from documents_of(rows, self.captions_of_row, notes, pictures)

    def captions_of_row(self, row: Mapping[str, Any], place: Place) -> list[Document]:
        """Return the documents of a row: one, or one for every caption of a list.

        Raises:
            LeftOutError: If it has no caption or no picture.
        """
        image, caption = (next(c for c in choice.split("|") if c in row) for choice in self.columns)
        address = row.get("url")
        source = address if isinstance(address, str) else None
        used = (image, caption, "exif")
        meta = {name: value for name, value in row.items() if name not in used and value is not None}
        return self.captioned(row[image], source, row[caption], place, meta)
