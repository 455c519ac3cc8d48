"""Pictures on pages: data URLs and small copies, whatever the file holds."""

import base64
import io

import pytest
from PIL import Image as Pillow

from mm1.document import Image
from mm1.look.pictures import as_png, data_url, embedded, read_header, thumbnail


def encoded(format: str, size: tuple[int, int] = (40, 20)) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", size, "red").save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_what_browsers_show_is_embedded_unchanged(format):
    content = encoded(format)
    mime = read_header(content).mime
    assert mime is not None
    url = data_url(content, mime)
    assert url == embedded(Image(content))["source"]
    kind, _, text = url.partition(";base64,")
    assert kind == f"data:image/{format.lower()}"
    assert base64.b64decode(text) == content


def test_what_browsers_do_not_show_is_named():
    assert read_header(encoded("TIFF")).mime is None
    assert embedded(Image(encoded("TIFF")))["source"] is None
    assert read_header(b"RIFF....WAVE").mime is None


@pytest.mark.parametrize(("size", "small"), [((400, 200), (64, 32)), ((20, 40), (20, 40))])
def test_a_thumbnail_keeps_the_shape_and_grows_nothing(size, small):
    header = read_header(thumbnail(Image(encoded("JPEG", size)), 64))
    assert (header.format, header.width, header.height) == ("PNG", *small)


@pytest.mark.parametrize("image", [Image(b"no picture"), Image(encoded("PNG")[:60]), Image(path="nowhere.png")])
def test_the_thumbnail_of_a_damaged_picture_is_grey(image):
    assert thumbnail(image, 64) == as_png(Pillow.new("RGB", (8, 8), "grey"))
