"""How many image tokens a picture of some size takes: the library's hook, by which a server plans its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage
from transformers import AutoProcessor

from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import ResolutionRecipe

RESOLUTIONS: list[dict[str, Any]] = [
    {},
    {"fit": "pad"},
    {"grid": "2x2"},
    {"grid": "dynamic", "min_tiles": 1, "max_tiles": 6},
    {"grid": "2x2", "min_side": 200},
]


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_image_tokens_of_a_size_are_those_of_the_picture(tmp_path: Path, resolution: dict[str, Any]) -> None:
    tokenizer = train_tokenizer(["a red square, two blue circles\n"] * 3, 320)
    rule = ResolutionRecipe.model_validate(resolution)
    build_processor(tokenizer, image_size=32, tokens_per_image=4, resolution=rule).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    sizes = [(100, 100), (300, 100), (30, 500), (5, 7)]
    found = processor._get_num_multimodal_tokens(image_sizes=sizes)
    for (height, width), tokens, images in zip(sizes, found.num_image_tokens, found.num_image_patches, strict=True):
        inputs = processor(text="<image>", images=[PILImage.new("RGB", (width, height))], return_tensors="pt")
        assert tokens == int((inputs["input_ids"] == processor.image_token_id).sum())
        assert images == len(inputs["pixel_values"])
    assert processor._get_num_multimodal_tokens().num_image_tokens is None
