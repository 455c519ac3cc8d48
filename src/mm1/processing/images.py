"""From encoded bytes to RGB pixels: bounded, upright, on white, at the size the model takes."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""Pictures with more pixels are refused before they are decoded (decompression bombs)."""

_WHITE = (255, 255, 255, 255)


class ImageError(ValueError):
    """A picture that can't be used; the message says why in a few words."""


def decode_image(data: bytes, target_size: int | None = None) -> PILImage.Image:
    """Decode one picture to RGB.

    The first frame of an animation is taken, EXIF rotation is applied, transparency is laid on white, 16-bit
    grey is scaled to 8 bits.

    Args:
        data: The encoded bytes (any format that Pillow reads).
        target_size: If the picture is going to be scaled down to this many pixels on its shorter side, JPEG
            decoding may already stop at a size not below it, which is several times faster.

    Returns:
        An RGB picture.

    Raises:
        ImageError: If the bytes are not a picture, it is damaged, or it has more than `MAX_PIXELS` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            image = PILImage.open(io.BytesIO(data))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"{width}x{height} pixels are more than the limit of {MAX_PIXELS:,}")
        if target_size is not None and image.format == "JPEG":
            image.draft("RGB", (target_size, target_size))
        return to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not a readable picture (no format that is known)") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
        raise ImageError(f"not a readable picture ({type(error).__name__}: {error})") from error


def to_rgb(image: PILImage.Image) -> PILImage.Image:
    """Return the picture in RGB, transparent parts on white, 16-bit grey scaled to 8 bits."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image, dtype=np.float32)
        image = PILImage.fromarray(np.clip(values / 257.0, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return PILImage.alpha_composite(PILImage.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")


def resize_to_square(image: PILImage.Image, size: int) -> np.ndarray:
    """Resize to `size` x `size` pixels (bicubic, aspect ratio not kept).

    Returns:
        uint8 array of shape (3, size, size).
    """
    if image.size != (size, size):
        image = image.resize((size, size), PILImage.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
