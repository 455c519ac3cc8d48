"""What a budget or a prediction is for: a recipe, or one of the paper's models with the paper's training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mm1.model import MM1ForConditionalGeneration
from mm1.model.presets import PRESETS, VOCABULARY, recipe_config
from mm1.model.sizes import non_embedding_parameters
from mm1.recipe import Recipe, check_recipe, load_recipe

_PAPER_MIXTURE = {"caption": 0.45, "interleaved": 0.45, "text": 0.10}
"""Paper sec. 3.3."""


def planned_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a preset's recipe, or a packaged one, or that of a file.

    Args:
        name: `mm1-3b` and the like stand for the model with the paper's batch, sequences, steps and mixture.
        overrides: `key=value` settings.

    Raises:
        UserError: If there is none of that name, or any key or value is wrong.
    """
    if name not in PRESETS:
        return load_recipe(name, overrides)
    content: dict[str, Any] = {
        "name": name,
        "model": PRESETS[name].model_dump(by_alias=True),
        "tokenizer": {"vocab_size": VOCABULARY},
        "data": {"mixture": {k: {"weight": w, "sources": [{"corpus": k}]} for k, w in _PAPER_MIXTURE.items()}},
    }
    return check_recipe(content, overrides, name, Recipe)


def shape_of(recipe: Recipe) -> MM1ForConditionalGeneration:
    """Return a recipe's model without weights, on the meta device.

    Raises:
        UserError: If sizes do not fit each other, or the recipe starts from pre-trained weights.
    """
    config = recipe_config(recipe.model, recipe.tokenizer.vocab_size)
    with torch.device("meta"):
        return MM1ForConditionalGeneration(config).train()


def law_size(name: str) -> int:
    """Return N of the law for a model.

    Raises:
        UserError: See `planned_recipe` and `shape_of`.
    """
    return non_embedding_parameters(shape_of(planned_recipe(name)))
