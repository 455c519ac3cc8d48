"""The model of a recipe without weights, for budgets and predictions."""

from __future__ import annotations

import torch

from mm1.model import MM1ForConditionalGeneration
from mm1.model.lora import set_trained
from mm1.model.resolve import resolve_models
from mm1.model.shape import recipe_config, vocabulary_size
from mm1.model.sizes import non_embedding_parameters
from mm1.recipe import Recipe, load_recipe


def shape_of(recipe: Recipe) -> MM1ForConditionalGeneration:
    """Return a recipe's model without weights, on the meta device.

    Raises:
        UserError: If sizes do not fit each other, or a model that the recipe starts from is missing or can't be used.
    """
    resolved = resolve_models(recipe, weights=False)
    config = recipe_config(resolved.model, vocabulary_size(resolved))
    with torch.device("meta"):
        return MM1ForConditionalGeneration(config).train()


def as_trained(recipe: Recipe) -> MM1ForConditionalGeneration:
    """Return the same with what training adds to it and freezes: `train.lora` and `train.freeze`.

    Raises:
        UserError: See `shape_of`; or if layers take no adapters.
    """
    model = shape_of(recipe)
    set_trained(model, recipe.train)
    return model


def law_size(name: str) -> int:
    """Return the law's N for the model of a recipe.

    Args:
        name: A packaged recipe's name or a YAML file.

    Raises:
        UserError: See `load_recipe` and `shape_of`.
    """
    return non_embedding_parameters(shape_of(load_recipe(name)))
