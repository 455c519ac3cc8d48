"""Features of images: which of a vision tower's outputs the connector reads."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPVisionModel, PreTrainedModel

from mm1.model.configuration import MM1Config


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
    return tower_outputs(tower, config, pixels)[0]


def tower_outputs(
    tower: PreTrainedModel, config: MM1Config, pixels: torch.Tensor, **kwargs: Any
) -> tuple[torch.Tensor, Any]:
    """Return `patch_features`, and the output of the tower that they are part of.

    Args:
        tower: As of `patch_features`.
        config: As of `patch_features`.
        pixels: As of `patch_features`.
        kwargs: Passed to the tower (`output_hidden_states` and the like).
    """
    if reads_inner_layer(config):
        asked = kwargs.get("output_hidden_states", getattr(tower.config, "output_hidden_states", False))
        outputs = tower(pixels, **kwargs | {"output_hidden_states": True, "return_dict": True})
        features = outputs.hidden_states[config.vision_feature_layer]
        if not asked:
            outputs.hidden_states = None
    else:
        outputs = tower(pixels, **kwargs | {"return_dict": True})
        features = outputs.last_hidden_state
        if config.vision_final_norm and isinstance(tower, CLIPVisionModel):
            features = tower.post_layernorm(features)
    return features[:, features.shape[1] - config.patch_grid**2 :], outputs


def reads_inner_layer(config: MM1Config) -> bool:
    """Whether the connector reads another layer than the tower's last."""
    return config.vision_feature_layer not in (-1, config.vision_config.num_hidden_layers)
