"""The configuration of a recipe's model, its weights left alone: what sizes, FLOPs and budgets are computed from."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedConfig

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.factory import compose, scratch_decoder, whole_config
from mm1.model.pretrained import PACKAGED, pretrained_config
from mm1.model.towers import scratch_tower, tower_config
from mm1.recipe import ModelRecipe


def recipe_config(recipe: ModelRecipe, vocab_size: int, language_model: Path | str | None = None) -> MM1Config:
    """Return the configuration of the model that `build_model` would build; the image token is the vocabulary's last.

    Of pre-trained parts only the configurations are read: folders and the Hub are asked for no weights.

    Args:
        recipe: The recipe's `model` section.
        vocab_size: Length of the tokenizer; a pre-trained decoder's vocabulary is not shrunk to it.
        language_model: Folder of the decoder where `recipe.language_model.from` is the name of a packaged one.

    Raises:
        UserError: If sizes do not fit each other, or a pre-trained part can't be found or used.
    """
    if recipe.from_ is not None:
        return _whole(recipe.from_, recipe.image_size)
    source = language_model or recipe.language_model.from_
    if source in PACKAGED:
        raise ValueError(f"'{source}' is to be resolved to a folder first: resolve_language_model")
    vision = recipe.vision
    return compose(
        recipe,
        scratch_tower(vision) if vision.from_ is None else tower_config(vision.from_, vision.image_size),
        scratch_decoder(recipe.language_model, vocab_size) if source is None else _decoder(str(source), vocab_size),
        image_token_id=vocab_size - 1,
    )


def _whole(source: str, image_size: int | None) -> MM1Config:
    config = whole_config(source)
    if image_size is not None and image_size != config.vision_config.image_size:
        if image_size % config.vision_config.patch_size:
            raise UserError(
                f"model.vision.image_size: {image_size} is not a multiple of the patch size "
                f"{config.vision_config.patch_size}"
            )
        config.vision_config.image_size = image_size
        if config.connector == "mlp":
            config.image_seq_length = config.patch_grid**2
    return config


def _decoder(source: str, vocab_size: int) -> PreTrainedConfig:
    config = pretrained_config(source, "model.language_model.from").get_text_config()
    config.vocab_size = max(config.vocab_size, vocab_size)
    return config
