"""Pictures given in any way become what training makes of the same picture."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from mm1.document import Image
from mm1.processing.images import ImageError
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tiles import TilingRule
from tests.processing.sample_tokenizers import own

RULES = {
    "squashed": TilingRule(),
    "padded": TilingRule(fit="pad"),
    "cut": TilingRule(grid="2x2"),
    "cut and padded": TilingRule(grid="dynamic", min_tiles=1, max_tiles=4, fit="pad"),
}
RANDOM = np.random.default_rng(0)
RGB, RGBA, LA, GREY, DEEP = (
    PILImage.fromarray(RANDOM.integers(0, np.iinfo(dtype).max + 1, (20, 30, *channels), dtype=dtype))
    for channels, dtype in (
        ((3,), np.uint8),
        ((4,), np.uint8),
        ((2,), np.uint8),
        ((), np.uint8),
        ((), np.uint16),
    )
)
PALETTE, CLEAR_PALETTE, BLACK_AND_WHITE = RGB.quantize(16), RGBA.quantize(16), RGB.convert("1")
MODES = {"RGB": RGB, "RGBA": RGBA, "LA": LA, "L": GREY, "I;16": DEEP, "P": PALETTE, "1": BLACK_AND_WHITE}


def file_of(picture: PILImage.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


@pytest.fixture(params=RULES, scope="module")
def processor(request: pytest.FixtureRequest) -> MM1Processor:
    return build_processor(own(), 16, 4, resolution=RULES[request.param])


def assert_as_in_training(
    processor: MM1Processor, given: Any, data: bytes, tolerance: float = 0, **options: Any
) -> None:
    """Check that a picture becomes what `decode_image` and the tower's normalisation make of its file."""
    right = processor.normalize(torch.from_numpy(processor.pixel_values([Image(data)])))
    made = processor(text="<image>", images=given, return_tensors="pt", **options)
    assert made["pixel_values"].dtype == torch.float32
    assert made["pixel_values"].shape == right.shape
    assert (made["pixel_values"] - right).abs().max() <= tolerance + 1e-5
    assert (made["input_ids"] == processor.image_token_id).sum() == 4 * len(right)


@pytest.mark.parametrize("mode", MODES)
def test_pillows_pictures(processor: MM1Processor, mode: str) -> None:
    assert MODES[mode].mode == mode
    assert_as_in_training(processor, MODES[mode], file_of(MODES[mode]))


def test_transparency_outside_the_pixels(processor: MM1Processor) -> None:
    assert_as_in_training(processor, CLEAR_PALETTE, file_of(CLEAR_PALETTE))
    data = file_of(GREY, transparency=100)
    assert_as_in_training(processor, PILImage.open(io.BytesIO(data)), data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "I;16", "1"])
def test_arrays_and_tensors(processor: MM1Processor, mode: str) -> None:
    data, values = file_of(MODES[mode]), np.array(MODES[mode])
    shapes = [values, values[None], values[..., None]] if values.ndim == 2 else [values, values.transpose(2, 0, 1)]
    for array in map(np.ascontiguousarray, shapes):
        assert_as_in_training(processor, array, data)
        assert_as_in_training(processor, [array], data)
        assert_as_in_training(processor, torch.from_numpy(array), data)
        if values.dtype == np.uint8:
            assert_as_in_training(processor, array.astype(np.int64), data)
            assert_as_in_training(processor, array.astype(np.float32), data)
            assert_as_in_training(processor, torch.from_numpy(array).to(torch.bfloat16), data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L"])
@pytest.mark.parametrize("options", [{"do_rescale": False}, {"images_kwargs": {"do_rescale": False}}, {}])
def test_floats_from_0_to_1_are_scaled_once(processor: MM1Processor, mode: str, options: dict[str, Any]) -> None:
    data, values = file_of(MODES[mode]), np.array(MODES[mode]) / 255
    for array in (values, values[None] if values.ndim == 2 else values.transpose(2, 0, 1)):
        assert_as_in_training(processor, array.astype(np.float64), data, **options)
        assert_as_in_training(processor, array.astype(np.float32), data, **options)
        assert_as_in_training(processor, torch.from_numpy(np.ascontiguousarray(array)).float(), data, **options)
        assert_as_in_training(processor, array.astype(np.float16), data, tolerance=0.05, **options)


def test_white_and_black_floats(processor: MM1Processor) -> None:
    for value, colour in ((1.0, "white"), (0.0, "black")):
        data = file_of(PILImage.new("RGB", (30, 20), colour))
        for options in ({}, {"do_rescale": False}):
            assert_as_in_training(processor, np.full((20, 30, 3), value, dtype=np.float32), data, **options)


def test_bytes_are_left_as_they_are_where_that_is_asked(processor: MM1Processor) -> None:
    made = processor(text="<image>", images=RGB, return_tensors="pt", do_rescale=False, do_normalize=False)
    assert torch.equal(made["pixel_values"], torch.from_numpy(processor.pixel_values([Image(file_of(RGB))])))


def test_channels_are_where_the_caller_says(processor: MM1Processor) -> None:
    narrow = PILImage.fromarray(RANDOM.integers(0, 256, (3, 9, 3), dtype=np.uint8))
    assert_as_in_training(processor, np.array(narrow), file_of(narrow), input_data_format="channels_last")


def test_files_and_urls(processor: MM1Processor, tmp_path: Path) -> None:
    """Transparency and depth are read as in training; the library's own reader drops both."""
    for name in ("RGBA", "I;16"):
        data = file_of(MODES[name])
        (tmp_path / "picture.png").write_bytes(data)
        text = base64.b64encode(data).decode()
        for source in (str(tmp_path / "picture.png"), tmp_path / "picture.png", text, f"data:image/png;base64,{text}"):
            assert_as_in_training(processor, source, data)
    turned = PILImage.Exif()
    turned[0x112] = 6
    data = file_of(RGB, "JPEG", exif=turned, quality=100)
    (tmp_path / "turned.jpg").write_bytes(data)
    assert_as_in_training(processor, str(tmp_path / "turned.jpg"), data)
    assert_as_in_training(processor, PILImage.open(io.BytesIO(data)), data)


def test_several_pictures_of_several_texts(processor: MM1Processor) -> None:
    together = processor(
        text=["<image> a <image>", "b", "<image>"], images=[[RGB, LA], [], [GREY]], return_tensors="pt", padding=True
    )
    alone = [
        processor(text="<image>", images=picture, return_tensors="pt")["pixel_values"] for picture in (RGB, LA, GREY)
    ]
    assert torch.equal(together["pixel_values"], torch.cat(alone))
    batch = np.stack([np.array(RGB)] * 2)
    assert len(processor(text="<image><image>", images=batch, return_tensors="pt")["pixel_values"]) == 2 * len(alone[0])
    for nothing in ("[]", "[[], []]"):
        assert "pixel_values" not in processor(text=["a", "b"], images=json.loads(nothing))


def test_a_size_that_the_caller_wants() -> None:
    processor = build_processor(own(), 16, 4)
    for options in ({"size": {"height": 8, "width": 8}}, {"size": {"height": 8, "width": 8}, "do_rescale": False}):
        made = processor(text="<image>", images=np.array(RGBA) / 255, return_tensors="pt", **options)
        assert made["pixel_values"].shape == (1, 3, 8, 8)
        right = build_processor(own(), 8, 4)(text="<image>", images=RGBA, return_tensors="pt")
        assert (made["pixel_values"] - right["pixel_values"]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing.png", "'nothing.png' is no picture .there is no such file"),
        ("abcd", "'abcd' is no picture .there is no such file"),
        (object(), "a object is no picture"),
        (np.zeros((2, 3, 4, 5, 6)), "an array of shape"),
        (np.zeros((6, 6, 6)), "it must have 1 to 4 channels"),
        (np.full((6, 6, 3), -0.5), "run from -0.5 to -0.5"),
        (np.full((6, 6, 3), 1.5), "give floats from 0 to 1"),
        (np.full((6, 6, 3), 300), "run from 300 to 300"),
        (np.full((6, 6, 3), np.nan), "run from nan to nan"),
        (np.full((6, 6, 3), None), "an array of object"),
        (np.zeros((6, 6, 3), complex), "an array of complex128"),
        (np.zeros((0, 6, 3), np.uint8), "without pixels"),
        (torch.zeros(3, 6, 0), "without pixels"),
        (PILImage.new("RGBA", (6, 0)), "without pixels"),
    ],
)
def test_what_is_no_picture(processor: MM1Processor, given: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        processor(text="<image>", images=[given])
