"""A folder of pictures, each with a file of the same name and another end that holds its caption."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mm1.data.readers.captions import CaptionReader
from mm1.data.readers.layout import parse_json
from mm1.data.readers.opening import decode_caption, read_up_to
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import CAPTION_SUFFIXES, PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError
from mm1.document import Document
from mm1.places import is_address
from mm1.remote.opening import absolute, open_binary
from mm1.remote.search import names_in

MAX_CAPTION_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ImageFolder(CaptionReader):
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
        pictures = PictureFolder((shard.root,))
        files = ((shard.name(file), file) for file in shard.files)
        return documents_of(files, self._documents, notes, pictures)

    def _documents(self, file: str, place: Place) -> list[Document]:
        picture = {"path": place.name}
        if self.classes:
            label = os.path.basename(os.path.dirname(absolute(file)))
            return self.captioned(picture, None, label, place, {"label": label})
        return self.captioned(picture, None, self._caption(file, place), place, {})

    def choose(self, names: list[str]) -> tuple[list[str], dict[str, str]]:
        """Tell pictures from others among the files of one folder; captions belong to pictures of the same name."""
        pictures = [name for name in names if self.takes(name)]
        of_pictures = {*pictures, *(os.path.splitext(name)[0] for name in pictures)}
        left_out = {}
        for name in sorted(set(names).difference(pictures)):
            of, end = os.path.splitext(name)
            if self.classes or end.lower() not in CAPTION_SUFFIXES:
                left_out[name] = ""
            elif of not in of_pictures:
                left_out[name] = "caption file without a picture"
        return pictures, left_out

    def _caption(self, file: str, place: Place) -> object:
        """Return what the files beside a picture have for a caption: the first that says something.

        Raises:
            LeftOutError: If there is no such file, it can't be read, or all are empty.
        """
        problem = LeftOutError("picture without a caption file")
        for path, content in _caption_files(file):
            text = decode_caption(content, place.notes, place.name)
            if not text.strip():
                problem = LeftOutError("caption that is empty")
            elif not path.lower().endswith(".json"):
                return text.strip().partition("\n")[0] if self.first_line else text
            else:
                try:
                    record = parse_json(text)
                except ValueError:
                    raise LeftOutError("caption file with broken JSON") from None
                if not isinstance(record, dict) or "caption" not in record:
                    raise LeftOutError("caption file without a 'caption'")
                return record["caption"]
        raise problem


def _caption_files(picture: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the captions of a picture: `a.txt` or `a.png.txt` for `a.png`, and so on.

    Raises:
        LeftOutError: If one can't be read.
    """
    for of in (os.path.splitext(picture)[0], picture):
        for suffix in CAPTION_SUFFIXES:
            for path in (of + suffix, of + suffix.upper(), of + suffix.replace(suffix[1], suffix[1].upper(), 1)):
                if is_address(path) and path not in names_in(os.path.dirname(path)):  # asking for each takes long
                    continue
                try:
                    with open_binary(path) as stream:
                        content = read_up_to(stream, MAX_CAPTION_BYTES + 1)
                except (FileNotFoundError, IsADirectoryError):
                    continue
                except OSError as error:
                    raise LeftOutError("caption file that can't be read", error.strerror or "") from None
                if len(content) > MAX_CAPTION_BYTES:
                    raise LeftOutError(f"caption file larger than {MAX_CAPTION_BYTES >> 20} MiB")
                yield path, content
                break  # where `.txt` and `.TXT` are one name
