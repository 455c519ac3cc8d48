"""A folder of pictures, each with a file of the same name and another end that holds its caption."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mm1.data.readers.layout import caption_parts, parse_json
from mm1.data.readers.lines import decode
from mm1.data.readers.pictures import PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document

CAPTION_SUFFIXES = (".txt", ".caption", ".json")


@dataclass(frozen=True)
class ImageFolder(Reader):
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
        folder = PictureFolder(shard.root)
        for file in shard.files:
            name = shard.name(file)
            caption = self._class(file) if self.classes else self._caption(file, name, notes)
            if caption is None:
                continue
            picture = folder.take(name, notes, "picture")
            if picture is not None:
                meta = {"label": caption} if self.classes else {}
                yield Document(name, "caption", caption_parts(picture, caption), meta)

    def _class(self, file: str) -> str:
        return os.path.basename(os.path.dirname(os.path.abspath(file)))

    def _caption(self, file: str, name: str, notes: Notes) -> str | None:
        stem = os.path.splitext(file)[0]
        for suffix in CAPTION_SUFFIXES:
            try:
                content = Path(stem + suffix).read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                continue
            except OSError as error:
                notes.skipped.add("caption file that can't be read", f"{name}: {error.strerror}")
                return None
            text = decode(content, notes, name)
            if suffix == ".json":
                try:
                    record = parse_json(text)
                except ValueError:
                    record = None
                text = str(record.get("caption") or "") if isinstance(record, dict) else ""
            elif self.first_line:
                text = text.strip().partition("\n")[0]
            if text.strip():
                return text
            notes.skipped.add("empty or broken caption file", name)
            return None
        notes.skipped.add("picture without a caption file", name)
        return None
