"""Local steps on pictures: size, aspect ratio, address, number, copies, damage.

The limits are those of OBELICS, which the paper uses (arXiv 2306.16527; arXiv 2403.09611, appendix A).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from mm1.clean.step import Dropped, LocalStep, numbered_images, without_images
from mm1.data.readers.pictures import PictureError, picture_size
from mm1.document import Document, Image, Kind
from mm1.errors import UserError
from mm1.processing.images import ImageError, decode_image


def picture_bytes(image: Image) -> bytes | None:
    """Return the encoded bytes; None if their file can't be read."""
    try:
        return image.read()
    except UserError:
        return None


@dataclass(frozen=True)
class ImageSize(LocalStep):
    """Drop pictures that are too small, too large, or too long on one side.

    Attributes:
        min_side: Least pixels of both sides.
        max_side: Most pixels of both sides.
        max_aspect: Largest ratio of the longer side to the shorter one.
    """

    min_side: int = 100
    max_side: int = 10_000
    max_aspect: float = 2.0

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop pictures that exceed a limit; the reason is the first one exceeded."""
        reasons = ((place, self._reason(image)) for place, image in numbered_images(document))
        return without_images(document, {place: reason for place, reason in reasons if reason}, dropped)

    def _reason(self, image: Image) -> str | None:
        try:
            width, height = picture_size(picture_bytes(image) or b"")
        except PictureError as error:
            return str(error)
        if min(width, height) < self.min_side:
            return f"a side below {self.min_side} pixels"
        if max(width, height) > self.max_side:
            return f"a side above {self.max_side} pixels"
        if max(width, height) > self.max_aspect * min(width, height):
            return f"sides of a ratio above {self.max_aspect:g}"
        return None


@dataclass(frozen=True)
class ImageAddress(LocalStep):
    """Drop pictures whose address or file name says that they are part of the page's layout.

    Attributes:
        words: A picture is dropped if its address contains any of these words; case doesn't count.
    """

    words: tuple[str, ...] = ("logo", "button", "icon", "plugin", "widget")

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop pictures with one of the words in their address."""
        pattern = re.compile("|".join(re.escape(word) for word in self.words) or "(?!)", re.IGNORECASE)
        places = {place for place, image in numbered_images(document) if pattern.search(image.path or "")}
        return without_images(document, dict.fromkeys(places, "a word in its address"), dropped)


@dataclass(frozen=True)
class Decodable(LocalStep):
    """Drop pictures that can't be decoded completely (readers check headers only)."""

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop the pictures that can't be decoded."""
        places = set()
        for place, image in numbered_images(document):
            try:
                decode_image(picture_bytes(image) or b"")
            except ImageError:
                places.add(place)
        return without_images(document, dict.fromkeys(places, "it can't be decoded"), dropped)


@dataclass(frozen=True)
class CopiesInDocument(LocalStep):
    """Keep the first copy of a picture within a document."""

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop pictures whose bytes (or address, without bytes) occur earlier in the document."""
        seen: set[bytes] = set()
        places = set()
        for place, image in numbered_images(document):
            key = picture_key(image)
            if key in seen:
                places.add(place)
            seen.add(key)
        return without_images(document, dict.fromkeys(places, "a copy of one before"), dropped)


@dataclass(frozen=True)
class ImageCount(LocalStep):
    """Drop documents with too few or too many pictures.

    Attributes:
        min: Fewest pictures.
        max: Most pictures.
        kinds: Kinds of documents that the step applies to.
    """

    min: int = 1
    max: int = 30
    kinds: tuple[Kind, ...] = ("interleaved",)

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop the document if the number of its pictures is outside the limits."""
        if document.kind not in self.kinds:
            return document
        number = len(document.images)
        if number < self.min:
            return dropped.drop(f"fewer than {self.min} pictures", document)
        if number > self.max:
            return dropped.drop(f"more than {self.max} pictures", document)
        return document


def picture_key(image: Image) -> bytes:
    """Return a hash of 16 bytes of a picture's bytes, or of its address if it has no bytes."""
    return hashlib.blake2b(image.data or (image.path or "").encode(), digest_size=16).digest()
