from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PILImage

from mm1.processing import images
from mm1.processing.images import ImageError, decode_image, resize_to_square


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
    with pytest.raises(ImageError, match="not a readable picture"):
        decode_image(data)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 80)
    with pytest.raises(ImageError, match="picture of more than 80 pixels"):
        decode_image(encoded(PILImage.new("RGB", (9, 9)), "PNG"))


def test_a_small_target_decodes_a_jpeg_smaller_but_never_too_small() -> None:
    data = encoded(PILImage.new("RGB", (1024, 768), "green"), "JPEG")
    image = decode_image(data, target_size=64)
    assert 64 <= min(image.size) < 768
    assert resize_to_square(image, 64).shape == (3, 64, 64)
