"""Pictures on their way into a corpus: only what can be a picture, known from its header, gets in.

Pixels are not decoded here; that is `mm1.processing.images.decode_image`'s, when a sequence is played.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from mm1.data.readers.reader import Notes
from mm1.document import Image
from mm1.processing import images

PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif",
    ".jp2", ".j2k", ".jpx", ".heic", ".heif", ".hif", ".ppm", ".pgm", ".pbm", ".pnm", ".ico",
)  # fmt: skip
"""Ends of the names of pictures; the bytes decide what one is."""
CAPTION_SUFFIXES = (".txt", ".caption", ".json")
"""Ends of the names of the captions that lie beside pictures, in the order in which they are looked for."""
MAX_PICTURE_BYTES = 256 * 2**20

_ADDRESS = re.compile(r"(?:https?:)?//", re.IGNORECASE)


class PictureError(ValueError):
    """A picture that is left out; the message is the reason that it is counted under."""


def picture_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels from the header.

    Raises:
        PictureError: If the bytes are no picture, or there are more than `MAX_PIXELS` pixels.
    """
    try:
        return images.picture_size(data)
    except images.ImageError as error:
        raise PictureError(str(error)) from None


def take_picture(data: object, source: str | None, notes: Notes, where: str) -> Image | None:
    """Return the picture, or count in `notes` why it is left out and return None.

    Args:
        data: The encoded bytes.
        source: Its file name or address, kept beside the bytes.
        notes: Where it is counted.
        where: What to call it there.
    """
    try:
        if not isinstance(data, bytes):
            raise PictureError("the picture's bytes are missing")
        picture_size(data)
    except PictureError as error:
        notes.skipped.add(str(error), where)
        return None
    return Image(data, source)


@dataclass(frozen=True)
class PictureFolder:
    """Pictures in files below one directory; what a document names outside of it is not read.

    Args:
        root: The directory.
    """

    root: str

    def take_value(self, value: object, source: str | None, notes: Notes, where: str) -> Image | None:
        """Return the picture that a column holds: bytes, `{"bytes", "path"}`, or a path; or count why not.

        Args:
            value: What the column holds.
            source: The picture's address, if another column tells it.
            notes: Where it is counted.
            where: What to call the row there.
        """
        if isinstance(value, Mapping):
            path = value.get("path") if isinstance(value.get("path"), str) else None
            value, source = (path if value.get("bytes") is None else value["bytes"]), source or path
        if isinstance(value, str):
            picture = self.take(value, notes, where)
            return Image(picture.data, source) if picture and source else picture
        return take_picture(value, source, notes, where)

    def take(self, reference: str, notes: Notes, where: str, base: str = "") -> Image | None:
        """Return the picture that a document refers to, or count why not and return None.

        Args:
            reference: A path from `base`, or a `data:` address. Web addresses are not followed.
            notes: Where it is counted.
            where: What to call the document there.
            base: Directory below the root that the path is told from.
        """
        where = f"{where}: {reference[:200]}"
        try:
            data = _data_address(reference) if reference.startswith("data:") else self._read(reference, base)
        except PictureError as error:
            notes.skipped.add(str(error), where)
            return None
        return take_picture(data, None if reference.startswith("data:") else reference, notes, where)

    def _read(self, reference: str, base: str) -> bytes:
        if _ADDRESS.match(reference):
            raise PictureError("the picture is a web address: fetch it first (with img2dataset, say)")
        root = os.path.abspath(self.root)
        last_error: OSError | ValueError | None = None
        # Names on disk are taken as they are before they are taken as quoted addresses (`a%20b.png?size=1`).
        for name in dict.fromkeys((reference, unquote(re.split(r"[?#]", reference)[0]))):
            try:
                # Links below the folder are followed, as its owner put them there; a name can't lead out of it.
                path = os.path.normpath(os.path.join(root, base, name))
                if os.path.commonpath([root, path]) != root:
                    raise PictureError("the picture lies outside of the source folder")
                if os.path.getsize(path) > MAX_PICTURE_BYTES:
                    raise PictureError(f"picture file larger than {MAX_PICTURE_BYTES >> 20} MiB")
                return Path(path).read_bytes()
            except PictureError:
                raise
            except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                last_error = error
        missing = isinstance(last_error, FileNotFoundError)
        raise PictureError("the picture's file is missing" if missing else "the picture's file can't be read")


def _data_address(reference: str) -> bytes:
    head, comma, content = reference.partition(",")
    try:
        if not comma:
            raise ValueError
        if head.endswith(";base64"):
            return base64.b64decode(unquote_to_bytes(content))
        return unquote_to_bytes(content)
    except (ValueError, binascii.Error):
        raise PictureError("a data: address that can't be decoded") from None
