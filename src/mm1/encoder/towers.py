"""Builds an encoder's towers and processors from its recipe."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionModel,
    PreTrainedTokenizerBase,
)

from mm1.errors import UserError
from mm1.model.fresh import build_fresh
from mm1.model.positions import resize_tower
from mm1.model.pretrained import pretrained_config
from mm1.model.saved import load_saved
from mm1.model.towers import load_tower, pixel_statistics, scratch_tower
from mm1.recipe import EncoderModelRecipe, VisionRecipe


def build_clip(recipe: EncoderModelRecipe, tokenizer: PreTrainedTokenizerBase, max_tokens: int, seed: int) -> CLIPModel:
    """Build the two towers; a tower that isn't pre-trained gets random weights.

    Args:
        recipe: The recipe's `model` section.
        tokenizer: The captions' tokenizer.
        max_tokens: Length of the longest caption, begin and end included.
        seed: The seed of the random weights.

    Raises:
        UserError: If sizes do not fit each other, or a pre-trained tower can't be used.
    """
    model = _new_clip(recipe, tokenizer, max_tokens, seed) if recipe.from_ is None else _load_clip(recipe)
    longest = model.text_model.config.max_position_embeddings
    if max_tokens > longest:
        raise UserError(
            f"data.sequence_length {max_tokens} is too long for '{recipe.from_}': set it to at most {longest}"
        )
    return model.train()


def build_tower(recipe: VisionRecipe, seed: int) -> CLIPVisionModel:
    """Build a vision tower, pre-trained or with random weights.

    Raises:
        UserError: If sizes do not fit each other, or a pre-trained tower can't be used.
    """
    tower = _pretrained_tower(recipe)
    if tower is None:
        config = scratch_tower(recipe)
        tower = build_fresh(lambda: CLIPVisionModel(config), seed)
    return tower.train()


def image_processor(recipe: EncoderModelRecipe) -> CLIPImageProcessorPil:
    """Return a processor that resizes pictures to the tower's square and normalises them, as `mm1.processing` does."""
    mean, std = pixel_statistics(recipe.from_ or recipe.vision.from_)
    size = {"height": recipe.vision.image_size, "width": recipe.vision.image_size}
    return CLIPImageProcessorPil(size=size, do_center_crop=False, image_mean=list(mean), image_std=list(std))


def clip_processor(images: CLIPImageProcessorPil, tokenizer: PreTrainedTokenizerBase) -> CLIPProcessor:
    """Return the two-tower model's processor."""
    return CLIPProcessor(images, tokenizer)


def _new_clip(recipe: EncoderModelRecipe, tokenizer: PreTrainedTokenizerBase, max_tokens: int, seed: int) -> CLIPModel:
    text = recipe.text
    if text.hidden_size % text.num_heads:
        raise UserError(
            f"model.text: hidden_size {text.hidden_size} is not a multiple of num_heads {text.num_heads}: change one "
            "of them"
        )
    tower = _pretrained_tower(recipe.vision)
    tokens: dict[str, Any] = {name: getattr(tokenizer, name) for name in _TOKENS}
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=text.hidden_size,
        intermediate_size=4 * text.hidden_size,
        num_hidden_layers=text.num_layers,
        num_attention_heads=text.num_heads,
        max_position_embeddings=max_tokens,
        hidden_act="gelu",
        **tokens,
    )
    vision_config = scratch_tower(recipe.vision) if tower is None else tower.config
    config = CLIPConfig(
        text_config=text_config.to_dict(),
        vision_config=vision_config.to_dict(),
        projection_dim=recipe.projection_size,
    )
    model = build_fresh(lambda: CLIPModel(config), seed)
    if tower is not None:
        model.vision_model.load_state_dict(tower.state_dict())
    return model


_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _load_clip(recipe: EncoderModelRecipe) -> CLIPModel:
    """Load both towers; the vision tower is adapted to the recipe's image size."""
    key, source = "model.from", str(recipe.from_)
    config = pretrained_config(source, key)
    if config.model_type != "clip":
        raise UserError(
            f"{key}: '{recipe.from_}' is a {config.model_type}, not a CLIP model with two towers: to start from its "
            "vision tower only, set model.vision.from instead"
        )
    model: CLIPModel = load_saved(CLIPModel, source, f"{key}: '{recipe.from_}'", dtype=torch.float32)
    resize_tower(model.vision_model, recipe.vision.image_size)
    model.config.vision_config = model.vision_model.config
    return model


def _pretrained_tower(recipe: VisionRecipe) -> CLIPVisionModel | None:
    if recipe.from_ is None:
        return None
    tower = load_tower(recipe.from_, recipe.image_size)
    if not isinstance(tower, CLIPVisionModel):
        raise UserError(
            f"model.vision.from: '{recipe.from_}' is a {tower.config.model_type}, and an encoder can only start from a "
            "clip_vision_model: name another tower"
        )
    return tower
