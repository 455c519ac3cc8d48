"""The configuration of a recipe's model, its weights left alone: what sizes, FLOPs and budgets are computed from."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedConfig

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.factory import compose, scratch_decoder, whole_config
from mm1.model.positions import check_image_size
from mm1.model.pretrained import pretrained_config
from mm1.model.towers import scratch_tower, tower_config
from mm1.processing.tokenizer import load_tokenizer
from mm1.recipe import LanguageModelRecipe, ModelRecipe, Recipe, VisionRecipe
from mm1.recipe.decoder_sizes import DECODER_VOCABULARIES


def recipe_config(recipe: ModelRecipe, vocab_size: int, image_token_id: int | None = None) -> MM1Config:
    """Return the configuration of the model that `build_model` would build.

    Of pre-trained parts only the configurations are read.

    Args:
        recipe: The recipe's `model` section; every `from` is a folder (see `mm1.model.resolve.resolve_models`).
        vocab_size: Length of the tokenizer; a pre-trained decoder's vocabulary is not shrunk to it.
        image_token_id: Id of the tokenizer's `<image>`; default: the vocabulary's last. A whole model has its own.

    Raises:
        UserError: If sizes do not fit each other, or a pre-trained part can't be found or used.
    """
    if recipe.from_ is not None:
        return _whole(recipe.from_, recipe.image_size)
    return compose(
        recipe,
        _tower(recipe.vision),
        _decoder(recipe.language_model, vocab_size),
        image_token_id=vocab_size - 1 if image_token_id is None else image_token_id,
    )


def _is_stated(recipe: VisionRecipe | LanguageModelRecipe) -> bool:
    """Whether a pre-trained part has its shape from the recipe: it names one, and there is no folder to read."""
    return recipe.from_ is not None and recipe.size is not None and not Path(recipe.from_).is_dir()


def _tower(recipe: VisionRecipe) -> PreTrainedConfig:
    if recipe.from_ is None or _is_stated(recipe):
        return scratch_tower(recipe)
    config = _float32(tower_config(recipe.from_, recipe.image_size))
    if recipe.size is not None:
        stated = recipe.patch_size, recipe.hidden_size, recipe.num_layers, recipe.num_heads
        heads = getattr(config, "num_attention_heads", None)  # a convolutional tower has none
        own = config.patch_size, config.hidden_size, config.num_hidden_layers, heads
        if stated != own:
            raise UserError(
                f"model.vision.size: '{recipe.from_}' is no {recipe.size} (patch, width, layers and heads are {own}, "
                f"not {stated}): set model.vision.size: null"
            )
    return config


def _whole(source: str, image_size: int | None) -> MM1Config:
    config = whole_config(source)
    for part in (config, config.vision_config, config.text_config):
        _float32(part)
    if image_size is not None and image_size != config.vision_config.image_size:
        check_image_size(config.vision_config, image_size)
        config.vision_config.image_size = image_size
        if config.connector == "mlp":
            config.image_seq_length = config.patch_grid**2
    return config


def _decoder(recipe: LanguageModelRecipe, vocab_size: int) -> PreTrainedConfig:
    if recipe.from_ is None or _is_stated(recipe):
        return scratch_decoder(recipe, vocab_size)
    config = pretrained_config(recipe.from_, "model.language_model.from").get_text_config()
    if recipe.size is not None:
        stated = {
            "hidden_size": recipe.hidden_size,
            "num_hidden_layers": recipe.num_layers,
            "num_attention_heads": recipe.num_heads,
            "num_key_value_heads": recipe.num_kv_heads,
            "intermediate_size": recipe.intermediate_size,
        }
        for name, value in stated.items():
            if getattr(config, name, value) != value:
                raise UserError(
                    f"model.language_model.size: '{recipe.from_}' is no {recipe.size} (its {name} is "
                    f"{getattr(config, name)}, not {value}): set model.language_model.size: null"
                )
    config.vocab_size = max(config.vocab_size, vocab_size)
    return _float32(config)


def _float32(config: PreTrainedConfig) -> PreTrainedConfig:
    """Name the precision that weights are loaded in, whatever the files have."""
    config.dtype = torch.float32
    return config


def vocabulary_size(recipe: Recipe) -> int:
    """Return how many tokens a recipe's tokenizer has, `<image>` included, before it is trained or after.

    Args:
        recipe: Every `from` is a folder (see `mm1.model.resolve.resolve_models`).
    """
    source, decoder = recipe.model.tokenizer_from, recipe.model.language_model
    if recipe.model.from_ is None and _is_stated(decoder):
        return DECODER_VOCABULARIES[str(decoder.size)] + 1
    return recipe.tokenizer.vocab_size if source is None else len(load_tokenizer(source))
