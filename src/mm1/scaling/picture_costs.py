"""The cost of a picture for each resolution and grid: tokens, FLOPs, cache."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.positions import resize_images
from mm1.model.shape import recipe_config
from mm1.model.sizes import forward_flops
from mm1.processing.tiles import TilingRule, tile
from mm1.recipe import ModelRecipe
from mm1.scaling.description_table import short

INTERPOLATED = (448, 560, 672)
"""Image sides in pixels to which the paper interpolates its tower (sec. 4)."""

_CACHE_BYTES = 2  # per value, in bfloat16


@dataclass(frozen=True)
class PictureCost:
    """The cost of one picture in one mode.

    Attributes:
        mode: The mode's name: `one of 448`, `2x2 of 672`.
        size: Side of the tower's images in pixels.
        images: Number of images that the picture becomes.
        patches: Patches of all images together.
        tokens: Image tokens of all images together.
        vision_flops: Forward FLOPs of tower and connector.
        decoder_flops: Forward FLOPs of the decoder for these tokens.
        cache_bytes: Keys and values of these tokens in bfloat16, kept while the picture is in the context.
    """

    mode: str
    size: int
    images: int
    patches: int
    tokens: int
    vision_flops: int
    decoder_flops: int
    cache_bytes: int


def picture_costs(
    width: int,
    height: int,
    recipe: ModelRecipe,
    vocab_size: int,
    context: int,
    interpolated: Sequence[int] = INTERPOLATED,
) -> list[PictureCost]:
    """Return the costs of a picture as one image (also interpolated), cut 2x2, cut by MM1.5's rule, and by the recipe.

    Args:
        width: The picture's width in pixels.
        height: The picture's height in pixels.
        recipe: The model, which is built without memory for weights.
        vocab_size: Size of the decoder's vocabulary.
        context: Length of the sequence for which attention is counted.
        interpolated: Image sides to show; those not above the model's own are left out.

    Raises:
        UserError: See `mm1.model.shape.recipe_config`.
    """
    config = recipe_config(recipe, vocab_size)
    base, patch = config.vision_config.image_size, config.vision_config.patch_size
    larger = [size for size in interpolated if size > base and size % patch == 0]
    largest = larger[-1] if larger else base
    one, paper = TilingRule(), TilingRule(grid="2x2")
    modes = [(f"one of {size}", size, one) for size in (base, *larger)]
    modes += [(f"2x2 of {size}", size, paper) for size in dict.fromkeys((base, largest))]
    modes += [(f"dynamic of {largest}", largest, TilingRule(grid="dynamic", fit="pad", overview="last"))]
    own = TilingRule.of(recipe.resolution)
    if own != one:
        modes += [("the recipe's", base, own)]
    return [_cost(mode, width, height, size, rule, config, context) for mode, size, rule in modes]


def _cost(
    mode: str,
    width: int,
    height: int,
    size: int,
    rule: TilingRule,
    config: MM1Config,
    context: int,
) -> PictureCost:
    with torch.device("meta"):
        model = MM1ForConditionalGeneration(copy.deepcopy(config))
        resize_images(model, size)
    flops = forward_flops(model, context)
    images = len(tile(width, height, size, rule))
    tokens = images * model.config.image_seq_length
    text = model.config.text_config
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head_size * _CACHE_BYTES
    return PictureCost(
        mode,
        size,
        images,
        images * model.config.patch_grid**2,
        tokens,
        images * flops["image"],
        tokens * flops["token"],
        tokens * per_token,
    )


def parse_size(text: str) -> tuple[int, int]:
    """Return width and height of a text such as `1344x1344`.

    Raises:
        UserError: If the text is not a size.
    """
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UserError(f"--image {text}: give width and height in pixels, such as 1344x1344")
    return int(width), int(height)


def costs_table(name: str, width: int, height: int, costs: list[PictureCost]) -> Table:
    """Return a `rich` table of a picture's costs."""
    caption = "Forward only; training takes three times the FLOPs. Cache: keys and values in bfloat16."
    table = Table(title=f"{name}: a picture of {width}x{height}", caption=caption)
    table.add_column("", no_wrap=True)
    for column in ("images", "patches", "tokens", "FLOPs, tower", "FLOPs, decoder", "cache"):
        table.add_column(column, justify="right")
    for cost in costs:
        table.add_row(
            cost.mode,
            str(cost.images),
            f"{cost.patches:,}",
            f"{cost.tokens:,}",
            short(cost.vision_flops),
            short(cost.decoder_flops),
            f"{short(cost.cache_bytes)}B",
        )
    return table
