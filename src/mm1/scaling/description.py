"""Describes a model: parameters, memory, FLOPs.

The paper does not disclose the widths and depths of its decoders. It gives non-embedding sizes (2.9B, 6.4B, 30B; 1.2B
for the ablation base) and the totals of the sparse models (64B, 47B). The packaged recipes `mm1-...` choose shapes of
these sizes: heads of 128 channels, SwiGLU, and an FFN whose share of the dense decoder gives the sparse totals 64B and
47B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.shape import recipe_config
from mm1.model.sizes import active_parameters, forward_flops, parameters_by_part
from mm1.recipe import ModelRecipe


@dataclass(frozen=True)
class Description:
    """The sizes and costs of a model.

    Attributes:
        name: The model's name in tables.
        parameters: Parameters by part: `vision`, `connector`, `language_model` (without embeddings), `embeddings`.
        active_parameters: The same, with only the experts that one token uses.
        image_size: Side of an image in pixels.
        patches: Patches per image.
        tokens_per_image: Image tokens per image.
        training_bytes: Bytes of `weights`, `gradients` (bfloat16) and `optimizer` (float32 weights and AdamW's two
            moments) of the whole model, before sharding and without activations.
        flops_per_token: Forward FLOPs of the decoder per token at `context` tokens, vocabulary head included;
            training takes three times as many.
        flops_per_image: Forward FLOPs of tower and connector per image.
        context: Length of the sequence for which attention is counted.
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


def describe(name: str, recipe: ModelRecipe, vocab_size: int, context: int) -> Description:
    """Describe a model. The model is built on the meta device, which takes seconds and no memory for weights.

    Args:
        name: The model's name in tables.
        recipe: The model; every `from` is a folder (see `mm1.model.resolve.resolve_models`).
        vocab_size: Size of the decoder's vocabulary.
        context: Length of the sequence for which attention is counted.

    Raises:
        UserError: See `recipe_config`.
    """
    config = recipe_config(recipe, vocab_size)
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
