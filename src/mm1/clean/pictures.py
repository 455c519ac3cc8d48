"""Steps on pictures that look at one document: size, aspect, address, number, copies, damage.

The limits are OBELICS' as the paper's notes have them (arXiv 2306.16527; arXiv 2403.09611, appendix A).
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
    """Return the encoded bytes, or None if they are in a file that can't be read."""
    try:
        return image.read()
    except UserError:
        return None


@dataclass(frozen=True)
class ImageSize(LocalStep):
    """Drop pictures that are too small, too large, or too long on one side.

    Attributes:
        min_side: Pixels that both sides have at least.
        max_side: Pixels that both sides have at most.
        max_aspect: Longer side over shorter side, at most.
    """

    min_side: int = 100
    max_side: int = 10_000
    max_aspect: float = 2.0

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop pictures outside of the limits, each for the first that it breaks."""
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
    """Drop pictures whose address or file name says that they are furniture of the page.

    Attributes:
        words: Any of them, anywhere in the address, whatever the case.
    """

    words: tuple[str, ...] = ("logo", "button", "icon", "plugin", "widget")

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop pictures with one of the words in their address."""
        found = re.compile("|".join(re.escape(word) for word in self.words) or "(?!)", re.IGNORECASE)
        places = {place for place, image in numbered_images(document) if found.search(image.path or "")}
        return without_images(document, dict.fromkeys(places, "a word in its address"), dropped)


@dataclass(frozen=True)
class Decodable(LocalStep):
    """Drop pictures that can't be decoded to the last pixel (readers look at headers only)."""

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Decode every picture; drop those that fail."""
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
        """Drop pictures whose bytes, or address if there are none, came before."""
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
        min: Pictures, at least.
        max: Pictures, at most.
        kinds: Kinds of documents that it is about.
    """

    min: int = 1
    max: int = 30
    kinds: tuple[Kind, ...] = ("interleaved",)

    def apply(self, document: Document, dropped: Dropped) -> Document | None:
        """Drop the document if the number of its pictures is outside of the limits."""
        if document.kind not in self.kinds:
            return document
        number = len(document.images)
        if number < self.min:
            return dropped.drop(f"fewer than {self.min} pictures", document)
        if number > self.max:
            return dropped.drop(f"more than {self.max} pictures", document)
        return document


def picture_key(image: Image) -> bytes:
    """Return 16 bytes that stand for a picture: of its bytes, or of its address if there are none."""
    return hashlib.blake2b(image.data or (image.path or "").encode(), digest_size=16).digest()
