"""The paper's models by name, and what one costs: parameters, memory, FLOPs.

The paper does not disclose widths and depths of its decoders, only non-embedding sizes (2.9B, 6.4B, 30B; 1.2B
for the ablation base) and the totals of the sparse ones (64B, 47B). The shapes in the recipes are chosen here: heads of
128 channels, SwiGLU, and an FFN as large as the sparse totals demand, since 64B and 47B follow from how much
of the dense decoder its replaced FFNs are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.shape import recipe_config
from mm1.model.sizes import active_parameters, forward_flops, parameters_by_part
from mm1.recipe import ModelRecipe, load_recipe, packaged_recipes

VOCABULARY = 32_000
"""Undisclosed; the recipes' default."""
CONTEXT = 4096
"""Tokens per sequence (paper sec. 3)."""

PRESETS: dict[str, ModelRecipe] = {
    name: load_recipe(name).model for name in packaged_recipes() if name.startswith("mm1-")
}
"""Models of the packaged recipes `mm1-...`: the paper's (sec. 3.1, 3.4, 4), and a tiny one for tests."""


@dataclass(frozen=True)
class Description:
    """What a model is made of and what it costs.

    Attributes:
        name: The preset.
        parameters: By part: `vision`, `connector`, `language_model` (without embeddings), `embeddings`.
        active_parameters: The same, counting only the experts that one token uses.
        image_size: Side of an image in pixels.
        patches: Patches per image.
        tokens_per_image: Tokens the decoder reads per image.
        training_bytes: `weights`, `gradients` (bfloat16), `optimizer` (float32 weights and AdamW's two moments)
            of the whole model, before sharding and without activations.
        flops_per_token: Forward FLOPs of the decoder per token at `context` tokens, vocabulary head included;
            training takes three times as many.
        flops_per_image: Forward FLOPs of tower and connector per image.
        context: Length of the sequence that attention is counted for.
    """

    name: str
    parameters: dict[str, int]
    active_parameters: dict[str, int]
    image_size: int
    patches: int
    tokens_per_image: int
    training_bytes: dict[str, int]
    flops_per_token: int
    flops_per_image: int
    context: int


def preset(name: str) -> ModelRecipe:
    """Return a preset's recipe.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in PRESETS:
        raise UserError(f"model '{name}' is unknown: take one of {', '.join(PRESETS)}")
    return PRESETS[name]


def preset_config(name: str, vocab_size: int = VOCABULARY) -> MM1Config:
    """Return a preset's configuration; the image token is the vocabulary's last."""
    return recipe_config(preset(name), vocab_size)


def describe(
    name: str,
    recipe: ModelRecipe | None = None,
    vocab_size: int = VOCABULARY,
    context: int = CONTEXT,
) -> Description:
    """Describe a model. Builds it without memory (on the meta device), in seconds whatever its size.

    Args:
        name: One of `PRESETS`, or any name for `recipe`.
        recipe: What to describe; default the preset.
        vocab_size: Of the decoder.
        context: Tokens per sequence.

    Raises:
        UserError: If there is no preset of that name; see `recipe_config` too.
    """
    config = recipe_config(preset(name) if recipe is None else recipe, vocab_size)
    with torch.device("meta"):
        model = MM1ForConditionalGeneration(config)
    parameters = parameters_by_part(model)
    total = sum(parameters.values())
    flops = forward_flops(model, context)
    return Description(
        name=name,
        parameters=parameters,
        active_parameters=active_parameters(model),
        image_size=config.vision_config.image_size,
        patches=config.patch_grid**2,
        tokens_per_image=config.image_seq_length,
        training_bytes={"weights": 2 * total, "gradients": 2 * total, "optimizer": 12 * total},
        flops_per_token=flops["token"],
        flops_per_image=flops["image"],
        context=context,
    )
