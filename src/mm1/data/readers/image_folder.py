"""A folder of pictures, each with a file of the same name and another end that holds its caption."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mm1.data.readers.layout import caption_parts, parse_json
from mm1.data.readers.opening import decode
from mm1.data.readers.pictures import CAPTION_SUFFIXES, PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document
from mm1.processing.signatures import HEAD_BYTES, no_text

MAX_CAPTION_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ImageFolder(Reader):
    """Captioned pictures in a folder: `a.jpg` with `a.txt` (or `a.jpg.txt`), `a.caption`, or `a.json` with a `caption`.

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

    def choose(self, names: list[str]) -> tuple[list[str], dict[str, str]]:
        """Tell pictures from others among the files of one folder; captions belong to pictures of the same name."""
        pictures = [name for name in names if self.takes(name)]
        of_pictures = {*pictures, *(os.path.splitext(name)[0] for name in pictures)}
        left_out = {}
        for name in set(names).difference(pictures):
            of, end = os.path.splitext(name)
            if self.classes or end.lower() not in CAPTION_SUFFIXES:
                left_out[name] = ""
            elif of not in of_pictures:
                left_out[name] = "caption file without a picture"
        return pictures, dict(sorted(left_out.items()))

    def _caption(self, file: str, name: str, notes: Notes) -> str | None:
        path, content = _caption_file(file)
        if path is None:
            notes.skipped.add("picture without a caption file", name)
            return None
        if content is None:
            notes.skipped.add("caption file that can't be read", name)
            return None
        other = no_text(content[:HEAD_BYTES])
        if other is not None:
            notes.skipped.add(f"caption file that is no text: it is {other}", name)
            return None
        text = decode(content, notes, name)
        if text is None:
            return None
        if path.lower().endswith(".json"):
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


def _caption_file(picture: str) -> tuple[str | None, bytes | None]:
    """Return the path of the caption of a picture (`a.txt` or `a.png.txt` for `a.png`), and what it holds.

    The path is None if there is none, the content if it can't be read.
    """
    for of in (os.path.splitext(picture)[0], picture):
        for suffix in CAPTION_SUFFIXES:
            for path in (of + suffix, of + suffix.upper(), of + suffix[0] + suffix[1:].capitalize()):
                try:
                    with open(path, "rb") as stream:
                        return path, stream.read(MAX_CAPTION_BYTES)
                except (FileNotFoundError, IsADirectoryError):
                    continue
                except OSError:
                    return path, None
    return None, None
