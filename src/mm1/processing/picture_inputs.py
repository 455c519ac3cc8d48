"""Pictures as users of `transformers` give them (files, URLs, Pillow's, arrays, tensors), to RGB as everywhere else."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageOps
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format

from mm1.processing.images import ImageError, decode_image, to_rgb


def picture_arrays(pictures: Any, channels: str | ChannelDimension | None = None) -> Any:
    """Return pictures as arrays, lists as lists.

    Args:
        pictures: One, or a list of such, nested or not. One is a path, a URL, base64, a Pillow picture of any mode, or
            an array or tensor: (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels, (N, ...) for several.
        channels: Where an array's channels are (`channels_first`, `channels_last`); default: what its shape says.

    Returns:
        For each picture (3, H, W): uint8, or float32 from 0 to 1 where it was given as floats from 0 to 1.

    Raises:
        ImageError: If one of them is no picture.
    """
    if isinstance(pictures, list | tuple):
        return [picture_arrays(picture, channels) for picture in pictures]
    if isinstance(pictures, str | os.PathLike):
        return _channels_first(_fetched(os.fspath(pictures)))
    if isinstance(pictures, PILImage.Image):
        return _channels_first(to_rgb(ImageOps.exif_transpose(pictures)))
    if isinstance(pictures, torch.Tensor):
        tensor = pictures.detach().cpu()
        pictures = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(pictures, np.ndarray):
        raise ImageError(f"a {type(pictures).__name__} is no picture: give a path, a Pillow picture or an array")
    if pictures.dtype.kind not in "buif":
        raise ImageError(f"an array of {pictures.dtype} is no picture: give one of bytes or of floats from 0 to 1")
    if pictures.ndim == 4:
        return [picture_arrays(picture, channels) for picture in pictures]
    values, unit = _bytes(_channels_last(pictures, channels))
    rgb = _channels_first(to_rgb(PILImage.fromarray(values[..., 0] if values.shape[-1] == 1 else values)))
    return rgb.astype(np.float32) / 255 if unit else rgb


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """Return a picture of `picture_arrays` as uint8."""
    return picture if picture.dtype == np.uint8 else np.round(picture * 255).astype(np.uint8)


def _fetched(source: str) -> PILImage.Image:
    """Return the picture that a path, a URL or base64 stands for."""
    try:
        if source.startswith(("http://", "https://")):
            data = _downloaded(source)
        elif os.path.isfile(source):
            with open(source, "rb") as file:
                data = file.read()
        else:
            data = base64.b64decode(source.partition(",")[2] if source.startswith("data:") else source, validate=True)
        return decode_image(data)
    except (OSError, binascii.Error, ImageError) as error:
        named = source.startswith(("http://", "https://", "data:")) or os.path.isfile(source)
        reason = error if named else "there is no such file, and it is no picture in base64"
        raise ImageError(f"'{source[:80]}' is no picture ({reason}): give a path, a URL or base64") from None


def _downloaded(url: str) -> bytes:
    import httpx  # as `transformers` does: only who gives URLs needs it

    try:
        return httpx.get(url, follow_redirects=True, timeout=60).raise_for_status().content
    except httpx.HTTPError as error:
        raise OSError(str(error)) from None


def _channels_first(picture: PILImage.Image) -> np.ndarray:
    if not picture.width or not picture.height:
        raise ImageError("picture without pixels")  # as of one that is encoded
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))


def _channels_last(values: np.ndarray, channels: str | ChannelDimension | None) -> np.ndarray:
    """Return (H, W, C)."""
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3:
        raise ImageError(f"an array of shape {values.shape} is no picture: give (H, W), (H, W, C) or (C, H, W)")
    try:
        place = channels or infer_channel_dimension_format(values, num_channels=(1, 3, 4))
    except ValueError:  # grey with transparency
        place = ChannelDimension.FIRST if values.shape[0] == 2 else ChannelDimension.LAST
    values = np.moveaxis(values, 0, -1) if ChannelDimension(place) is ChannelDimension.FIRST else values
    if values.shape[-1] > 4:
        raise ImageError(f"an array of shape {values.shape} is no picture: it must have 1 to 4 channels")
    return values


def _bytes(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return values as uint8, and whether they are floats from 0 to 1."""
    if values.dtype == np.uint8:
        return values, False
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), False
    if values.dtype == np.uint16:
        return (values / 257.0).astype(np.uint8), False  # 16-bit grey, as `to_rgb` has it
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    whole = np.issubdtype(values.dtype, np.integer) or bool(np.all(values == np.round(values)))
    if not whole or (high <= 1 and np.issubdtype(values.dtype, np.floating)):
        if low >= 0 and high <= 1:
            return np.round(values * 255).astype(np.uint8), True
    elif low >= 0 and high <= 255:
        return values.astype(np.uint8), False
    raise ImageError(f"a picture's values run from {low} to {high}: give floats from 0 to 1, or whole numbers to 255")
