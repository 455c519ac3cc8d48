"""Pictures as several images: pixels, tokens, and the library's way to the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from mm1.document import Document, Image, Text
from mm1.processing.images import cut_image, decode_image, upright_size
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tiles import TilingRule, tile
from mm1.processing.tokenizer import train_tokenizer

SIZE, TOKENS = 16, 4


def picture(width: int = 40, height: int = 40, seed: int = 0, format: str = "PNG", **save) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PILImage.fromarray(pixels).save(stream, format, **save)
    return Image(stream.getvalue())


def processor(**resolution) -> MM1Processor:
    tokenizer = train_tokenizer(["a red square, two blue circles\n"] * 3, 320)
    return build_processor(tokenizer, SIZE, TOKENS, resolution=TilingRule(**resolution))


def test_the_overview_comes_first_then_the_crops_in_reading_order() -> None:
    """A picture of four colours: each crop is one of them, the overview has all."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    image = PILImage.new("RGB", (64, 64))
    for n, colour in enumerate(colours):
        image.paste(colour, (n % 2 * 32, n // 2 * 32, n % 2 * 32 + 32, n // 2 * 32 + 32))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    pixels = processor(grid="2x2").pixel_values([Image(stream.getvalue())])
    assert pixels.shape == (5, 3, SIZE, SIZE)
    assert len(np.unique(pixels[0].reshape(3, -1), axis=1).T) > 3
    for crop, colour in zip(pixels[1:], colours, strict=True):
        # The enlarged borders between colours ring a little; the inside is the colour itself.
        assert (crop[:, 4:12, 4:12] == np.array(colour)[:, None, None]).all()


def test_padding_is_the_mean_colour() -> None:
    pixels = cut_image(PILImage.new("RGB", (64, 16), (9, 9, 9)), tile(64, 16, 16, TilingRule(fit="pad")), (1, 2, 3))
    assert (pixels[0, :, 6:10] == 9).all()  # 64x16 becomes 16x4, in the middle
    assert (pixels[0, :, :6] == np.array([1, 2, 3])[:, None, None]).all()
    padded = processor(fit="pad")
    values = padded.normalize(torch.from_numpy(padded.pixel_values([picture(64, 16)])))
    assert values[:, :, :6].abs().max() < 0.01


def test_a_document_of_several_pictures() -> None:
    several = processor(grid="2x2")
    document = Document("d", "interleaved", (picture(), Text(" red"), Image(picture(9, 70).data, whole=True)))
    encoded = several.encode(document)
    red = several.tokenizer(" red", add_special_tokens=False)["input_ids"]
    image = several.image_token_id
    assert encoded.input_ids.tolist() == [1, *[image] * 20, *red, *[image] * 4, 2]
    assert encoded.image_starts.tolist() == [1, 21 + len(red)]
    assert encoded.image_lengths.tolist() == [20, 4]
    assert len(several.pixel_values(encoded.images)) == 6


def test_documents_of_many_pictures_are_not_cut() -> None:
    few = processor(grid="dynamic", max_tiles=4, max_pictures=2)
    two = Document("d", "interleaved", (picture(), picture(seed=1)))
    three = Document("d", "interleaved", (picture(), picture(seed=1), picture(seed=2)))
    assert few.encode(two).image_lengths.tolist() == [20, 20]
    encoded = few.encode(three)
    assert encoded.image_lengths.tolist() == [4, 4, 4]
    assert len(few.pixel_values(encoded.images)) == 3


def test_a_picture_turned_by_exif_is_cut_as_it_stands_upright() -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = picture(80, 20, format="JPEG", exif=exif.tobytes())
    assert upright_size(turned.read()) == (20, 80) == decode_image(turned.read()).size
    tiling = processor(grid="dynamic", min_tiles=2, max_tiles=4).tiling(turned)
    assert (tiling.rows, tiling.columns) == (4, 1)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_sizes_from_the_header_are_those_of_the_pixels(format: str) -> None:
    image = picture(31, 17, format=format)
    assert upright_size(image.read()) == decode_image(image.read()).size == (31, 17)
    assert upright_size(b"nothing of the kind") is None


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1), (3, 300), (300, 3), (800, 100), (100, 800)])
@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("grid", ["none", "2x2", "dynamic"])
def test_tiny_and_long_pictures(size: tuple[int, int], fit: str, grid: str) -> None:
    one = processor(fit=fit, grid=grid)
    image = picture(*size)
    encoded = one.encode(Document("d", "caption", (image,)))
    assert len(one.pixel_values([image])) * TOKENS == encoded.image_lengths.sum()


@pytest.mark.parametrize("resolution", [{"grid": "2x2"}, {"fit": "pad"}, {"grid": "dynamic", "overview": "last"}])
def test_the_librarys_way_gives_the_same(resolution: dict) -> None:
    """Text with marks and opened pictures, as users of `transformers` call a processor."""
    both = processor(**resolution)
    pictures = [picture(50, 30), picture(30, 60, seed=1)]
    document = Document("d", "interleaved", (pictures[0], Text(" red"), pictures[1]))
    encoded = both.encode(document, close=False)
    opened = [decode_image(image.read()) for image in pictures]
    theirs = both(text=["<image> red<image>"], images=[opened], return_tensors="pt")
    assert theirs["input_ids"][0].tolist() == encoded.input_ids.tolist()
    ours = both.normalize(torch.from_numpy(both.pixel_values(encoded.images)))
    assert torch.allclose(theirs["pixel_values"], ours, atol=1e-5)


def test_the_rule_is_saved_with_the_processor(tmp_path: Path) -> None:
    before = processor(grid="dynamic", max_tiles=16, fit="pad", overview="last")
    before.save_pretrained(tmp_path)
    after = MM1Processor.from_pretrained(tmp_path)
    assert after.rule == before.rule
    image = picture(70, 20)
    assert np.array_equal(after.pixel_values([image]), before.pixel_values([image]))
