"""What a picture costs in each mode, against counting by hand and by torch."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.positions import resize_images
from mm1.recipe import load_recipe
from mm1.scaling.picture_costs import parse_size, picture_costs
from mm1.scaling.subject import shape_of
from tests.model.builders import tiny_recipe


def test_the_papers_numbers():
    costs = {cost.mode: cost for cost in picture_costs(1344, 1344, load_recipe("mm1-3b").model, 32_000, 4096)}
    assert list(costs) == [
        "one of 378", "one of 448", "one of 560", "one of 672", "2x2 of 378", "2x2 of 672", "dynamic of 672",
    ]  # fmt: skip
    # 672 / 14 = 48 patches a side, five times 48 x 48; five times 144 tokens.
    paper = costs["2x2 of 672"]
    assert (paper.images, paper.patches, paper.tokens) == (5, 5 * 2304, 720)
    assert costs["one of 672"].tokens == 144
    assert paper.vision_flops == 5 * costs["one of 672"].vision_flops
    assert paper.decoder_flops == 5 * costs["one of 672"].decoder_flops
    # Keys and values of 20 heads of 128 in 36 layers, two bytes each.
    assert paper.cache_bytes == 720 * 2 * 36 * 20 * 128 * 2


def test_flops_are_those_of_the_interpolated_tower():
    recipe = load_recipe("mm1-tiny")
    model = MM1ForConditionalGeneration(shape_of(recipe).config)
    resize_images(model, 112)
    model.set_attn_implementation({"vision_config": "eager"})  # the CPU's fused attention is not counted
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.get_image_features(torch.zeros(1, 3, 112, 112))
    costs = {cost.mode: cost for cost in picture_costs(50, 50, recipe.model, 32_000, 4096, interpolated=[112])}
    assert costs["one of 112"].vision_flops == counter.get_total_flops()


def test_the_recipes_own_rule_is_a_row():
    recipe = tiny_recipe(resolution={"grid": "1x3"})
    (mine,) = (cost for cost in picture_costs(90, 30, recipe, vocab_size=64, context=64) if cost.mode == "the recipe's")
    assert (mine.size, mine.images, mine.tokens) == (16, 4, 16)


def test_on_the_command_line():
    result = CliRunner().invoke(app, ["model", "show", "mm1-tiny", "--image", "100x60"])
    assert result.exit_code == 0, result.output
    assert "a picture of 100x60" in result.output
    assert "2x2 of 672" in result.output


@pytest.mark.parametrize("text", ["1344", "ax2", "0x5", "3x"])
def test_a_size_that_is_none(text):
    with pytest.raises(UserError, match="width and height in pixels"):
        parse_size(text)
