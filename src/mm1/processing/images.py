"""From encoded bytes to RGB pixels: bounded, upright, on white, at the size and in the pieces that the model takes."""

from __future__ import annotations

import io
import warnings
from typing import Any, Protocol

import numpy as np
import torch
from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as PILImage

from mm1.processing.tiles import Box, Tiling

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


def upright_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels as EXIF has the picture turned, from the header; None if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = PILImage.open(io.BytesIO(data))
        width, height = image.size
        # A PNG would be decoded to look for EXIF data at its end: what is not at its beginning is left aside.
        known = image.format != "PNG" or "exif" in image.info
        turned = known and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except Exception:  # Pillow's header parsers raise nearly anything on damaged input
        return None
    if width < 1 or height < 1:
        return None
    return (height, width) if turned else (width, height)


def to_rgb(image: PILImage.Image) -> PILImage.Image:
    """Return the picture in RGB, transparent parts on white, 16-bit grey scaled to 8 bits."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image, dtype=np.float32)
        image = PILImage.fromarray(np.clip(values / 257.0, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
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


def cut_image(image: PILImage.Image, tiling: Tiling, padding: tuple[int, int, int]) -> np.ndarray:
    """Return the square images that a picture becomes.

    Args:
        image: RGB, of any size: it is resized (bicubic) to the boxes that the tiling gives it.
        tiling: Which images.
        padding: Colour of what the picture leaves free.

    Returns:
        uint8 array of shape (len(tiling), 3, tiling.size, tiling.size).
    """
    squares: list[np.ndarray] = []
    canvas: PILImage.Image | None = None
    for box in tiling.images:
        if box is None:
            square = _placed(image, (tiling.size, tiling.size), tiling.overview_inner, padding)
        else:
            canvas = canvas or _placed(image, tiling.canvas, tiling.inner, padding)
            square = canvas.crop(box)
        squares.append(resize_to_square(square, tiling.size))
    return np.stack(squares)


def _placed(image: PILImage.Image, size: tuple[int, int], inner: Box, padding: tuple[int, int, int]) -> PILImage.Image:
    """Return a canvas of a size with the picture, resized, in its inner box."""
    left, top, right, bottom = inner
    wanted = right - left, bottom - top
    if image.size != wanted:
        image = image.resize(wanted, PILImage.Resampling.BICUBIC)
    if wanted == size:
        return image
    canvas = PILImage.new("RGB", size, padding)
    canvas.paste(image, (left, top))
    return canvas


class PixelStatistics(Protocol):
    """What an image processor of `transformers` normalises with."""

    rescale_factor: Any
    image_mean: Any
    image_std: Any


def normalize_pixels(pixel_values: torch.Tensor, statistics: PixelStatistics) -> torch.Tensor:
    """Turn uint8 pixels (N, 3, H, W) into the float32 values that a tower takes, on their device.

    Args:
        pixel_values: Of any dtype, 0 to 255.
        statistics: The image processor.
    """
    mean, std = (
        torch.tensor(values, device=pixel_values.device).view(1, 3, 1, 1)
        for values in (statistics.image_mean, statistics.image_std)
    )
    return (pixel_values.float() * statistics.rescale_factor - mean) / std
