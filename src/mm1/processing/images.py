"""From encoded bytes to RGB pixels: bounded, upright, on white, at the size and in the pieces that the model takes."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PILImage

from mm1.processing.headers import everyday_size
from mm1.processing.metadata import png_exif, tiff_pixels, without_metadata
from mm1.processing.signatures import HEAD_BYTES, what_is
from mm1.processing.tiles import Box, Tiling

MAX_PIXELS = 100_000_000
"""Pictures with more pixels are refused before they are decoded (decompression bombs)."""

_WHITE = (255, 255, 255, 255)

# Formats of pixels that Pillow reads by itself: for EPS it would start another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "HEIF", "PPM", "ICO")
# Those that a build of Pillow may lack.
_MAY_BE_LACKING = {"a HEIC picture": "HEIF", "a JPEG 2000 picture": "JPEG2000", "an AVIF picture": "AVIF"}

_TURNS = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}
"""From the orientation of EXIF to what puts the picture upright."""

T = TypeVar("T")


class ImageError(ValueError):
    """A picture that can't be used; the message says why in a few words."""


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats of pictures that are read, as Pillow calls them."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    PILImage.init()
    return tuple(format_ for format_ in _FORMATS if format_ in PILImage.OPEN)


def picture_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels from the header, as they are stored.

    Raises:
        ImageError: If the bytes are not a picture, or it has more than `MAX_PIXELS` pixels, or none.
    """
    size = everyday_size(data)
    if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS:
        return size
    return _opened(data, lambda image: image.size)


def upright_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels as `decode_image` turns the picture, from the header; None if there is none."""
    try:
        return _opened(data, lambda image: image.size[::-1] if _orientation(image, data) >= 5 else image.size)
    except ImageError:
        return None


def decode_image(data: bytes, target_size: int | None = None) -> PILImage.Image:
    """Decode one picture to RGB.

    The first frame of an animation is taken, the picture is put upright as EXIF says, transparency is laid on white,
    deeper pixels are scaled to 8 bits. Metadata that are damaged or too large are left aside.

    Args:
        data: The encoded bytes, in one of `readable_formats`.
        target_size: If the picture is going to be scaled down to this many pixels on its shorter side, JPEG
            decoding may already stop at a size not below it, which is several times faster.

    Returns:
        An RGB picture.

    Raises:
        ImageError: If the bytes are not a picture, it is damaged, or it has more than `MAX_PIXELS` pixels.
    """

    def decode(image: PILImage.Image) -> PILImage.Image:
        turn = _TURNS.get(_orientation(image, data))
        if target_size is not None and image.format == "JPEG":
            image.draft("RGB", (target_size, target_size))
        image.load()
        return to_rgb(image if turn is None else image.transpose(turn))

    try:
        return _opened(data, decode)
    except ImageError as error:
        # What Pillow says of bytes that it doesn't know is where they are in memory.
        known = error.__cause__ is None or isinstance(error.__cause__, UnidentifiedImageError)
        cause = "" if known else f", {type(error.__cause__).__name__}: {error.__cause__}"
        raise ImageError(f"not a readable picture ({error}{cause})") from error


def _opened(data: bytes, use: Callable[[PILImage.Image], T]) -> T:
    """Open a picture, its header read, and use it: with its metadata, or without them where they are in the way.

    Raises:
        ImageError: If there are no pixels, too many, or it can't be used either way.
    """
    if not data:
        raise ImageError("picture of zero bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return use(_open(data))
        except ImageError:
            raise
        except Exception as error:  # Pillow's parsers and decoders raise nearly anything on damaged input
            problem = error
        bare = without_metadata(data)
        if bare != data:
            try:
                return use(_open(bare))
            except ImageError:
                raise
            except Exception as error:
                problem = error
    raise ImageError(_what_instead(data) or "not a picture, or a damaged one") from problem


def _open(data: bytes) -> PILImage.Image:
    try:
        image = PILImage.open(io.BytesIO(data), formats=readable_formats())
    except PILImage.DecompressionBombError:
        raise ImageError(f"picture of more than {MAX_PIXELS:,} pixels") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"picture of more than {MAX_PIXELS:,} pixels")
    if width < 1 or height < 1:
        raise ImageError("picture without pixels")
    return image


def _what_instead(data: bytes) -> str | None:
    """Return what bytes are that are no picture of a readable format; None if they may be a damaged one."""
    kind = what_is(data[:HEAD_BYTES])
    if kind in _MAY_BE_LACKING:
        remedy = "pip install 'mm1[heif]'" if kind == "a HEIC picture" else "a build of Pillow that has it"
        return None if _MAY_BE_LACKING[kind] in readable_formats() else f"{kind}, which is read with {remedy}"
    if kind == "a TIFF picture":
        return _odd_tiff(data)
    if kind is None or (kind.endswith(" picture") and kind != "a JPEG XL picture"):
        return None
    return f"not a picture that is read: it is {kind}"


def _odd_tiff(data: bytes) -> str | None:
    """Return what a TIFF is that Pillow has no pixels for; None if it may be a damaged one."""
    pixels = tiff_pixels(data)
    if pixels is None:
        return None
    values, bits, numbers = pixels
    is_grey = values == 1 and bits in (8, 16, 32)
    if is_grey or (values <= 4 and bits <= 16 and numbers == "whole numbers"):
        return None
    return f"a TIFF picture of {values} x {bits} bits ({numbers}): save it as grey or RGB of 8 or 16 bits"


def _orientation(image: PILImage.Image, data: bytes) -> int:
    """Return the orientation that EXIF tells, 1 to 8, from the header; 1 where Pillow turns the picture by itself."""
    if image.format == "TIFF":
        return 1
    try:
        if image.format == "PNG" and "exif" not in image.info:
            image.info["exif"] = png_exif(data)  # Pillow would decode the pixels to look behind them
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # it raises nearly anything on damaged input
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def to_rgb(image: PILImage.Image) -> PILImage.Image:
    """Return the picture in RGB, transparent parts on white, deeper pixels scaled to 8 bits (see `_to_8_bits`)."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return PILImage.alpha_composite(PILImage.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: PILImage.Image) -> PILImage.Image:
    """Return grey of 16 or 32 bits, or of floats, in 8 bits.

    Whole numbers of 16 bits are scaled from 0..65535, floats from 0..1 or 0..255 where all are within that; all others
    from the lowest to the highest that there is. What is no number becomes black.
    """
    values = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return PILImage.new("L", image.size)
    low, high = values[finite].min(), values[finite].max()
    whole = image.mode != "F"
    within = [top for top in ((65535.0,) if whole else (1.0, 255.0)) if low >= 0 and high <= top]
    bottom, top = (0.0, within[0]) if within else (low, high)
    scaled = np.where(finite, values - bottom, 0) / ((top - bottom or 1) / 255)
    return PILImage.fromarray((scaled if whole else scaled.round()).clip(0, 255).astype(np.uint8))


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
    # Filled in on the device: a copy from a list would wait for it.
    shape, where = (1, 1, 1, 1), pixel_values.device
    mean, std = (
        torch.cat([torch.full(shape, value, dtype=torch.float32, device=where) for value in values], dim=1)
        for values in (statistics.image_mean, statistics.image_std)
    )
    return (pixel_values.float() * statistics.rescale_factor - mean) / std
