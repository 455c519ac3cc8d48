from __future__ import annotations

import io
import struct
from typing import Literal

import numpy as np
import pytest
from PIL import Image as PILImage

from mm1.processing import images
from mm1.processing.images import ImageError, decode_image, picture_size, resize_to_square


def encoded(image: PILImage.Image, file_format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def middle(data: bytes) -> tuple[int, ...]:
    image = decode_image(data)
    pixel = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return pixel


def test_transparency_is_laid_on_white() -> None:
    assert middle(encoded(PILImage.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG")) == (255, 255, 255)
    assert middle(encoded(PILImage.new("RGBA", (9, 9), (255, 0, 0, 255)), "PNG")) == (255, 0, 0)
    palette = PILImage.new("P", (9, 9), 0)
    palette.putpalette([10, 20, 30] * 256)
    assert middle(encoded(palette, "PNG", transparency=0)) == (255, 255, 255)
    assert middle(encoded(palette, "PNG")) == (10, 20, 30)


def test_modes_that_are_not_rgb() -> None:
    assert middle(encoded(PILImage.new("L", (9, 9), 77), "PNG")) == (77, 77, 77)
    assert middle(encoded(PILImage.new("CMYK", (9, 9), (0, 255, 255, 0)), "JPEG"))[0] > 200
    deep = PILImage.fromarray(np.full((9, 9), 257 * 100, dtype=np.uint16))
    assert middle(encoded(deep, "PNG")) == (100, 100, 100)


def test_exif_rotation_is_applied() -> None:
    image = PILImage.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    assert decode_image(encoded(image, "JPEG", exif=exif)).size == (10, 20)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [PILImage.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert middle(data) == (255, 0, 0)


@pytest.mark.parametrize("data", [b"", b"no picture", encoded(PILImage.new("RGB", (99, 99)), "PNG")[:60]])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a readable picture") as caught:
        decode_image(data)
    assert " at 0x" not in str(caught.value)  # of an object in memory


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 80)
    with pytest.raises(ImageError, match="picture of more than 80 pixels"):
        decode_image(encoded(PILImage.new("RGB", (9, 9)), "PNG"))


def test_a_small_target_decodes_a_jpeg_smaller_but_never_too_small() -> None:
    data = encoded(PILImage.new("RGB", (1024, 768), "green"), "JPEG")
    image = decode_image(data, target_size=64)
    assert 64 <= min(image.size) < 768
    assert resize_to_square(image, 64).shape == (3, 64, 64)


def tiff(pixels: np.ndarray, numbers: int, order: Literal["<", ">"]) -> bytes:
    """Return an uncompressed TIFF of pixels (height, width, values)."""
    height, width, values = pixels.shape
    bits, start = pixels.dtype.itemsize * 8, 8 + 2 + 12 * 10 + 4
    several = [struct.pack(f"{order}{values}H", *[value] * values).ljust(4, b"\0") for value in (bits, numbers)]
    places = [start, start + len(several[0])]
    fields = [
        struct.pack(f"{order}HHI", tag, 3, values) + (one if values <= 2 else struct.pack(f"{order}I", place))
        for tag, one, place in zip((258, 339), several, places, strict=True)
    ]
    plain = {256: width, 257: height, 259: 1, 262: 2 if values > 2 else 1, 277: values, 278: height, 284: 1}
    fields += [struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in plain.items()]
    fields.append(struct.pack(f"{order}HHII", 273, 4, 1, start + sum(map(len, several))))
    fields.sort(key=lambda field: struct.unpack_from(f"{order}H", field))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(fields))
    return head + b"".join([*fields, bytes(4), *several, pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "numbers", "values", "kind"),
    [
        ("f4", 3, 3, "3 x 32 bits (floats)"),
        ("f4", 3, 4, "4 x 32 bits (floats)"),
        ("f8", 3, 1, "1 x 64 bits (floats)"),
        ("f2", 3, 3, "3 x 16 bits (floats)"),
        ("u4", 1, 3, "3 x 32 bits (whole numbers)"),
        ("i2", 2, 3, "3 x 16 bits (signed numbers)"),
        ("u1", 1, 5, "5 x 8 bits (whole numbers)"),
    ],
)
def test_tiffs_that_are_refused_by_name(
    order: Literal["<", ">"], dtype: str, numbers: int, values: int, kind: str
) -> None:
    data = tiff(np.ones((4, 6, values), dtype), numbers, order)
    with pytest.raises(ImageError) as caught:
        picture_size(data)
    assert str(caught.value) == f"a TIFF picture of {kind}: save it as grey or RGB of 8 or 16 bits"
    for cut in (6, 9, 60):
        with pytest.raises(ImageError, match="not a picture, or a damaged one"):
            picture_size(data[:cut])


@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_tiffs_that_are_read(order: Literal["<", ">"]) -> None:
    assert middle(tiff(np.full((4, 6, 3), 257 * 100, "u2"), 1, order)) == (100, 100, 100)
    assert middle(tiff(np.full((4, 6, 1), 100.0, "f4"), 3, order)) == (100, 100, 100)
    grey = tiff(np.full((4, 6, 1), 100.0, "f4"), 3, order)
    with pytest.raises(ImageError, match="damaged"):
        decode_image(grey[:-40])
