"""A folder of pictures, each with a file of the same name and another end that holds its caption."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mm1.data.readers.captions import CaptionReader
from mm1.data.readers.layout import parse_json
from mm1.data.readers.lines import decode
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError
from mm1.document import Document

CAPTION_SUFFIXES = (".txt", ".caption", ".json")


@dataclass(frozen=True)
class ImageFolder(CaptionReader):
    """Captioned pictures in a folder: `a.jpg` with `a.txt`, `a.caption`, or `a.json` with a `caption`.

    Attributes:
        first_line: Whether only the first line of a side-car text is the caption.
        classes: Whether a picture's folder is its class, as ImageNet has it: the folder's name is the caption and the
            meta `label`; other files aren't read.
    """

    suffixes: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    files_per_shard: ClassVar[int] = 1000
    first_line: bool = False
    classes: bool = False

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a caption document for every picture with a caption."""
        pictures = PictureFolder((shard.root,))
        files = ((shard.name(file), file) for file in shard.files)
        return documents_of(files, self._documents, notes, pictures)

    def _documents(self, file: str, place: Place) -> list[Document]:
        picture = {"path": place.name}
        if self.classes:
            label = os.path.basename(os.path.dirname(os.path.abspath(file)))
            return self.captioned(picture, None, label, place, {"label": label})
        return self.captioned(picture, None, self._caption(file, place), place, {})

    def _caption(self, file: str, place: Place) -> object:
        """Return what the file beside a picture has for a caption.

        Raises:
            LeftOutError: If there is no such file, or it can't be read.
        """
        stem = os.path.splitext(file)[0]
        for suffix in CAPTION_SUFFIXES:
            try:
                content = Path(stem + suffix).read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                continue
            except OSError as error:
                raise LeftOutError("caption file that can't be read", error.strerror or "") from None
            text = decode(content, place.notes, place.name)
            if suffix != ".json":
                return text.strip().partition("\n")[0] if self.first_line else text
            try:
                record = parse_json(text)
            except ValueError:
                raise LeftOutError("caption file with broken JSON") from None
            if not isinstance(record, dict) or "caption" not in record:
                raise LeftOutError("caption file without a 'caption'")
            return record["caption"]
        raise LeftOutError("picture without a caption file")
