"""The pictures that records name or hold: by path, as bytes, as base64, in any of the forms that libraries write.

A path is told from the folder of the file that names it, then from the folder that `pictures=` names, then from the
common folder of the sources. Files outside of these folders are not read (links below them are followed, as their owner
put them there), and web addresses are not fetched here (`mm1.data.readers.fetching` does, where that is asked for).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from mm1.data.located import Located, Location
from mm1.data.readers.pictures import MAX_PICTURE_BYTES, PictureError, picture_size
from mm1.data.readers.values import as_text, is_given, is_missing, kind_of, plain_python
from mm1.document import Image
from mm1.places import is_address
from mm1.remote.errors import MissingError
from mm1.remote.objects import remote_object
from mm1.remote.opening import absolute, join

_ODD = re.compile(r"[?#%\\]")
_EVERYDAY = re.compile(r"[\w-]+(?:[./][\w-]+)*", re.ASCII)  # below the folder for certain
_ADDRESS = re.compile(r"(?:https?:)?//", re.IGNORECASE)
# What base64 makes of the first bytes of JPEG, PNG, GIF, WebP, BMP and TIFF; paths begin otherwise or are shorter.
_BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-3]|SUkqA|TU0AK)[A-Za-z0-9+/\s]{40,}={0,2}\s*\Z")
_HELD = ("bytes", "base64", "data", "b64_json")
_NAMED = ("path", "url", "image_url", "image", "file_name", "source", "file")


class MissingPictureError(PictureError):
    """There is no file where a record says that its picture is."""


@dataclass(frozen=True)
class NotFetched:
    """Stands for a picture at a web address that was asked for in vain.

    Attributes:
        address: Where it is said to be.
        reason: Why it is not here.
    """

    address: str
    reason: str


def is_web_address(text: str) -> bool:
    """Whether a text names a picture on the web."""
    return _ADDRESS.match(text) is not None


@dataclass(frozen=True)
class PictureFolder:
    """Where paths of pictures are told from.

    Attributes:
        folders: In order; no picture outside of them is read.
    """

    folders: tuple[str, ...]

    @classmethod
    def beside(cls, file: str, root: str, pictures: str = "") -> PictureFolder:
        """Return where paths are told from that a source file names.

        Args:
            file: The source file.
            root: The common folder of the sources.
            pictures: The option: a path from here, or from the file's folder.
        """
        own = os.path.dirname(absolute(file))
        named = [pictures if os.path.isdir(pictures) else join(own, pictures)] if pictures else []
        return cls(tuple(dict.fromkeys([own, *map(absolute, named), absolute(root)])))

    def picture(self, value: object, source: str | None = None) -> Image:
        """Return the picture that a value holds or names.

        Args:
            value: Bytes, base64, a path, a `data:` address; an object that has one of these under `bytes`, `path`,
                `url`, `image_url` or the like; or a list of one of all that.
            source: The picture's address, if something else tells it.

        Raises:
            PictureError: If there is no picture, or none that can be taken; the message is the reason.
        """
        data, path = self._find(value)
        picture_size(data)
        return Image(data, source or path)

    def _find(self, value: Any, depth: int = 0) -> tuple[bytes, str | None]:
        """Return the bytes of a picture, and what it is called."""
        if isinstance(value, NotFetched):
            raise PictureError(f"a picture that was not fetched: {value.reason}")
        value = plain_python(value)
        if isinstance(value, Mapping):
            path = next((value[key] for key in _NAMED if is_given(value.get(key))), None)
            held = next((value[key] for key in _HELD if not is_missing(value.get(key))), None)
            if depth > 3 or (path is None and held is None):
                raise PictureError("a picture that is an object without bytes, path or url")
            if isinstance(held, str):
                data, name = (_data_address if held.startswith("data:") else _decoded)(held), None
            else:
                data, name = self._find(path if held is None else held, depth + 1)
            return data, path if isinstance(path, str) and not path.startswith("data:") else name
        if isinstance(value, (list, tuple)) and value:
            if len(value) == 1 and not isinstance(value[0], int):
                return self._find(value[0], depth + 1) if depth <= 3 else self._none(value)
            if all(isinstance(item, int) and 0 <= item < 256 for item in value):
                return bytes(value), None  # how JSON and tables hold bytes
            raise PictureError("a list where one picture belongs")
        if isinstance(value, bytes):
            text = as_text(value) if _BASE64.match(value[:200].decode("latin-1") + "=") else None
            return (value if text is None else _decoded(text)), None
        if not isinstance(value, str):
            return self._none(value)
        if value.startswith("data:"):
            return _data_address(value), None
        if _BASE64.match(value):
            return _decoded(value), None
        return self._read(value), value

    def _none(self, value: object) -> tuple[bytes, None]:
        raise PictureError(f"a picture that is {kind_of(value)}")

    @cached_property
    def _roots(self) -> list[str]:
        return [absolute(folder) for folder in self.folders]

    def _is_inside(self, path: str) -> bool:
        """Whether a path leads into one of the folders; links below them are their owner's, and followed."""
        if _is_below(path, self._roots):
            return True
        if is_address(path):
            return False
        return _is_below(os.path.realpath(path), map(os.path.realpath, self._roots))

    def _read(self, reference: str) -> bytes:
        if not reference.strip():
            raise PictureError("a picture that is an empty text")
        is_told = is_address(reference) and _is_below(reference, self._roots)  # by an address below the source folder
        if is_web_address(reference) and not is_told:
            raise PictureError("the picture is a web address: fetch it first (with img2dataset, say)")
        if reference.startswith("hf://") and not is_told:
            raise PictureError("the picture lies on the Hub beside the rows: download the dataset, and read its folder")
        everyday = self._read_everyday(reference)
        if everyday is not None:
            return everyday
        inside = exists_outside = False
        problem: Exception | None = None
        for path in self._candidates(reference.removeprefix("file://")):
            try:
                if not self._is_inside(path):
                    exists_outside = exists_outside or os.path.exists(path)
                    continue
                inside = True
                return _content(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                if isinstance(error, PictureError):
                    raise
                problem = error
        if problem is not None:
            raise PictureError("the picture's file can't be read")
        if exists_outside or not inside:
            raise PictureError("the picture lies outside of the source folder")
        raise MissingPictureError("the picture's file is missing")

    def _read_everyday(self, reference: str) -> bytes | None:
        """Return what a file holds that lies where its plain name says; None if it takes a closer look to tell."""
        if _EVERYDAY.fullmatch(reference) is None:
            return None
        try:
            return _content(f"{self._roots[0]}{os.sep}{reference}")
        except OSError:
            return None

    def _candidates(self, reference: str) -> Iterator[str]:
        """Yield where a picture may be, each place once."""
        # Names on disk are taken as they are before they are taken as quoted addresses (`a%20b.png?size=1`), and as
        # paths of Windows.
        is_plain = not _ODD.search(reference)
        others = () if is_plain else (unquote(re.split(r"[?#]", reference)[0]), reference.replace("\\", "/"))
        names = dict.fromkeys((reference, *others))
        seen: set[str] = set()
        for root in self._roots:
            for name in names:
                path = join(root, name)
                if path not in seen:
                    seen.add(path)
                    yield path


def _content(path: str) -> bytes:
    if is_address(path):
        return _content_at(path)
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size > MAX_PICTURE_BYTES:
            raise PictureError(f"picture file larger than {MAX_PICTURE_BYTES >> 20} MiB")
        data = stream.read()
    return Located(data, Location(os.path.abspath(path), 0, len(data)))


def _content_at(address: str) -> bytes:
    try:
        picture = remote_object(address)
    except MissingError as error:
        raise FileNotFoundError(str(error)) from error
    if picture.state.size > MAX_PICTURE_BYTES:
        raise PictureError(f"picture file larger than {MAX_PICTURE_BYTES >> 20} MiB")
    data = picture.read_on(0, picture.state.size)
    return Located(data, Location(address, 0, len(data)))


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


NOWHERE = PictureFolder((os.devnull,))
"""Of sources that have no folder."""


def _decoded(text: str | bytes) -> bytes:
    """Return what base64 stands for.

    Raises:
        PictureError: If it is none.
    """
    characters = text.encode("ascii", "replace") if isinstance(text, str) else text
    try:
        return base64.b64decode(b"".join(characters.split()), validate=True)
    except binascii.Error:
        raise PictureError("a picture that is a text and not base64") from None


def _data_address(reference: str) -> bytes:
    head, comma, content = reference.partition(",")
    if not comma:
        raise PictureError("a data: address that can't be decoded")
    return _decoded(unquote_to_bytes(content)) if head.endswith(";base64") else unquote_to_bytes(content)
