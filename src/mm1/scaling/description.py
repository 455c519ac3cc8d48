"""What a model is made of and what it costs: parameters, memory, FLOPs.

The paper does not disclose the widths and depths of its decoders. It gives non-embedding sizes (2.9B, 6.4B, 30B; 1.2B
for the ablation base) and the totals of the sparse ones (64B, 47B). The packaged recipes `mm1-...` choose shapes of
those sizes: heads of 128 channels, SwiGLU, and an FFN as large as the sparse totals demand, since 64B and 47B follow
from how much of the dense decoder its replaced FFNs are.
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
    """What a model is made of and what it costs.

    Attributes:
        name: As tables name it.
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


def describe(name: str, recipe: ModelRecipe, vocab_size: int, context: int) -> Description:
    """Describe a model. Builds it without memory (on the meta device), in seconds whatever its size.

    Args:
        name: As tables name it.
        recipe: The model; every `from` is a folder (see `mm1.model.resolve.resolve_models`).
        vocab_size: Of the decoder.
        context: Tokens per sequence, which attention is counted for.

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
