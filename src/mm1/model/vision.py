"""Vision towers: what their features are and where they come from."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.recipe import VisionRecipe


def patch_features(tower: PreTrainedModel, config: MM1Config, pixels: torch.Tensor) -> torch.Tensor:
    """Return the patches' features of the layer that the configuration names.

    CLS and register tokens, which towers put first, are dropped.

    Args:
        tower: The vision tower.
        config: Names the layer, and whether CLIP's final norm is applied.
        pixels: Normalised images, `(N, 3, image_size, image_size)`.

    Returns:
        `(N, patch_grid^2, vision hidden size)`.
    """
    layer = config.vision_feature_layer
    if layer in (-1, config.vision_config.num_hidden_layers):
        # Not through `hidden_states`: collecting them costs hooks and memory.
        features = tower(pixels).last_hidden_state
        if config.vision_final_norm and isinstance(tower, CLIPVisionModel):
            features = tower.post_layernorm(features)
    else:
        features = tower(pixels, output_hidden_states=[layer]).hidden_states[layer]
    return features[:, features.shape[1] - config.patch_grid**2 :]


def vision_config_from_recipe(recipe: VisionRecipe) -> PreTrainedConfig:
    """Return the configuration of the tower a recipe asks for.

    Raises:
        UserError: If the sizes do not fit each other, or `from` names no tower.
    """
    if recipe.from_ is not None:
        return pretrained_config(recipe.from_, "model.vision.from")
    if recipe.image_size % recipe.patch_size:
        raise UserError(
            f"model.vision: image_size {recipe.image_size} is not a multiple of patch_size {recipe.patch_size}"
        )
    if recipe.hidden_size % recipe.num_heads:
        raise UserError(
            f"model.vision: hidden_size {recipe.hidden_size} is not a multiple of num_heads {recipe.num_heads}"
        )
    return CLIPVisionConfig(
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        intermediate_size=recipe.intermediate_size or 4 * recipe.hidden_size,
        hidden_act="gelu",
    )


def load_tower(source: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a pre-trained tower from a folder or the Hub; of a two-tower model (CLIP), the vision half.

    Raises:
        UserError: If there is none.
    """
    config = pretrained_config(source, "model.vision.from")
    try:
        tower: PreTrainedModel = AutoModel.from_pretrained(source, config=config, dtype=dtype)
    except (OSError, ValueError) as error:
        raise UserError(f"model.vision.from: '{source}' can't be loaded ({_first_line(error)})") from None
    return tower


def pretrained_config(source: str, key: str) -> PreTrainedConfig:
    """Return the configuration of a pre-trained model; of a two-tower model, its vision half.

    Args:
        source: A folder or Hub id.
        key: The recipe's key that named it, for the message.

    Raises:
        UserError: If there is no model.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        hint = _first_line(error) if Path(source).exists() else "no such folder, and not on the Hub"
        raise UserError(f"{key}: '{source}' is no model: {hint}") from None
    if key == "model.vision.from" and hasattr(config, "vision_config"):
        vision: PreTrainedConfig = config.vision_config
        return vision
    return config


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
