"""What `train.compile` does with a recipe's blocks: graphs, breaks and recompilations, found on a small model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch._dynamo.utils import counters

from mm1.model import MM1ForConditionalGeneration
from mm1.model.parts import blocks_of
from mm1.model.shape import recipe_config
from mm1.recipe import ModelRecipe, Recipe
from mm1.rehearse.batch import fills

_IMAGE, _PATCH, _TOKENS, _LENGTH, _WORDS = 32, 8, 4, 64, 64


@dataclass(frozen=True)
class Compiled:
    """The result of compiling the blocks.

    Attributes:
        graphs: Graphs that were compiled; one for each part of a block and each kind of shapes.
        breaks: Breaks of graphs by reason.
    """

    graphs: int
    breaks: dict[str, int]


def compile_blocks(recipe: Recipe) -> Compiled | None:
    """Trace the blocks of a small model of a recipe's kinds of parts, over batches of different contents.

    Whether a graph breaks depends on the code and not on sizes.

    Returns:
        None if the recipe starts from pre-trained parts, whose kinds are not made small here.
    """
    model = recipe.model
    if model.from_ or any(part.from_ and part.size is None for part in (model.vision, model.language_model)):
        return None
    data = recipe.data.model_copy(update={"sequence_length": _LENGTH, "images_per_sequence": 2})
    small = recipe.model_copy(update={"model": _small(model), "data": data})
    built = MM1ForConditionalGeneration(recipe_config(small.model, _WORDS)).train()
    for tower in (built.model.vision_tower, built.model.language_model):
        for block in blocks_of(tower):
            block.compile(backend="eager")
    torch._dynamo.reset()
    counters.clear()
    for batch in fills(small, _TOKENS, _IMAGE, 1).values():
        names = ("input_ids", "position_ids", "target_positions")
        pixels = {"pixel_values": batch["pixel_values"].float(), "image_positions": batch["image_positions"]}
        inputs = {name: batch[name] for name in names} | (pixels if len(batch["pixel_values"]) else {})  # type: ignore[literal-required]
        built(**inputs, use_cache=False).logits.sum().backward()
    breaks = Counter({reason.splitlines()[0]: count for reason, count in counters["graph_break"].items()})
    graphs = counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    return Compiled(graphs, dict(breaks))


def _small(model: ModelRecipe) -> ModelRecipe:
    decoder, heads = model.language_model, 4
    groups = decoder.num_kv_heads is not None and decoder.num_kv_heads < decoder.num_heads
    return model.model_copy(
        update={
            "vision": model.vision.model_copy(
                update={
                    "from_": None,
                    "size": None,
                    "image_size": _IMAGE,
                    "patch_size": _PATCH,
                    "hidden_size": 32,
                    "num_layers": 2,
                    "num_heads": 2,
                    "intermediate_size": None,
                }
            ),
            "connector": model.connector.model_copy(update={"num_tokens": _TOKENS, "hidden_size": 32, "depth": 1}),
            "language_model": decoder.model_copy(
                update={
                    "hidden_size": 64,
                    "num_layers": 2,
                    "num_heads": heads,
                    "num_kv_heads": heads // 2 if groups else None,
                    "intermediate_size": None,
                    "num_experts": min(decoder.num_experts, 4),
                    "sparse_every": min(decoder.sparse_every, 2),
                }
            ),
        }
    )
