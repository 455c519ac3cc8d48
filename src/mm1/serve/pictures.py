"""Pictures of requests: data URLs read, addresses fetched, sizes checked before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from mm1.document import Image
from mm1.processing.images import ImageError, picture_size
from mm1.serve.addresses import fetch
from mm1.serve.bodies import Address
from mm1.serve.call import Call
from mm1.serve.limits import Limits
from mm1.serve.problems import Problem

_SPACE = re.compile(r"\s+")


class PictureReader:
    """Reads the pictures of one request.

    Args:
        limits: Pixels are counted over the whole request.
        call: Addresses are fetched within its time.
    """

    def __init__(self, limits: Limits, call: Call) -> None:
        self._limits = limits
        self._call = call
        self._pixels = 0

    def read(self, given: Address | str, param: str) -> Image:
        """Return a picture.

        Args:
            given: A data URL or an address.
            param: The part of the request that holds it, for messages.

        Raises:
            Problem: If there is no picture, or it is too large.
        """
        url = given if isinstance(given, str) else given.url
        data = _data(url, param) if url[:5].lower() == "data:" else self._fetched(url, param)
        try:
            width, height = picture_size(data)
        except ImageError as error:
            raise Problem(400, f"{param}: {error}", code="invalid_image", param=param) from None
        self._pixels += width * height
        if self._pixels > self._limits.pixels:
            raise Problem(
                400,
                f"{param}: with this picture of {width:,} x {height:,} the request has more than "
                f"{self._limits.pixels:,} pixels, the most that this server takes: send smaller pictures",
                code="image_too_large",
                param=param,
            )
        return Image(data, whole=not isinstance(given, str) and given.detail == "low")

    def _fetched(self, url: str, param: str) -> bytes:
        return fetch(url, self._limits.hosts, self._limits.body_bytes, min(10.0, self._call.seconds_left), param)


def places(text: str, images: Sequence[Image], mark: str) -> list[Image | str]:
    """Return a text with pictures at its marks, in order; empty texts are left out.

    Raises:
        Problem: If there are more or fewer marks than pictures.
    """
    texts = text.split(mark)
    if len(texts) - 1 != len(images):
        raise Problem(
            400,
            f"prompt: it has {len(texts) - 1} places for pictures ({mark}), and images has {len(images)}: give one "
            "place a picture",
            param="images",
        )
    parts: list[Image | str] = [texts[0]]
    for image, after in zip(images, texts[1:], strict=True):
        parts += [image, after]
    return [part for part in parts if part != ""]


def _data(url: str, param: str) -> bytes:
    """Return the bytes of a data URL (RFC 2397) in base64."""
    head, comma, text = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise Problem(400, f"{param}: write a data URL as data:image/png;base64,...", code="invalid_image", param=param)
    try:
        return base64.b64decode(_SPACE.sub("", text), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = str(error)[:80]
        raise Problem(
            400,
            f"{param}: the data URL is no base64 ({reason}): encode the file's bytes",
            code="invalid_image",
            param=param,
        ) from None
