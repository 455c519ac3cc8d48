"""A prompt as JSON values, for showing what the model saw."""

from __future__ import annotations

import base64
import io

from PIL import Image as PILImage

from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.processing.images import ImageError, decode_image

_SIDE = 256


def example_parts(prompt: Document) -> list[dict[str, str]]:
    """Return a prompt's parts: `{"text": ...}`, and `{"image": PNG in base64}` of at most 256 pixels a side."""
    return [{"image": png_base64(part)} if isinstance(part, Image) else {"text": part.text} for part in prompt.parts]


def png_base64(image: Image, side: int = _SIDE) -> str:
    """Return a picture as base64 of a PNG that is at most `side` pixels wide and high; grey if it is damaged."""
    try:
        picture = decode_image(image.read(), side)
    except (ImageError, UserError):
        picture = PILImage.new("RGB", (8, 8), "grey")
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
