"""The processor of a recipe's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mm1.errors import UserError
from mm1.model.pretrained import pretrained_config
from mm1.model.saved import load_processor
from mm1.model.towers import pixel_statistics
from mm1.processing.chat import default_chat_template, names_targets, read_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tiles import TilingRule
from mm1.recipe import ModelRecipe, Recipe


def recipe_processor(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> MM1Processor:
    """Return the processor of a recipe's model: its image size and tokens per image, its tower's pixel statistics.

    Args:
        recipe: Every `from` is a folder (see `mm1.model.resolve.resolve_models`).
        tokenizer: Of the decoder.
    """
    model, brought = recipe.model, tokenizer.chat_template
    if model.from_ is not None:
        processor = brought_processor(model.from_, model)
        brought = processor.chat_template
    else:
        mean, std = pixel_statistics(model.vision.from_)
        processor = build_processor(
            tokenizer, model.vision.image_size, model.connector.num_tokens, mean, std, resolution=model.resolution
        )
    processor.chat_template = chat_template(recipe, brought)
    return processor


def token_ids(processor: MM1Processor) -> dict[str, Any]:
    """Return what a model is told of its tokenizer, as arguments of `build_model` and `start_sharded`."""
    tokenizer = processor.tokenizer
    return {
        "vocab_size": len(tokenizer),
        "image_token_id": processor.image_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def chat_template(recipe: Recipe, brought: str | dict[str, str] | None) -> str | None:
    """Return the template of a recipe's conversations, None for a model that takes none.

    In this order: the recipe's own; that of the whole model it starts from; the package's, if it trains on
    conversations. A decoder's template is taken only if the recipe says so: the decoder was trained with it, this
    model was not.

    Args:
        recipe: Its `model.chat_template` is a file, `package` or `decoder`.
        brought: That of the model or of the decoder it starts from; the default one of several is meant.

    Raises:
        UserError: If the template can't be read, or the decoder has none that says what the targets are.
    """
    model, wanted = recipe.model, recipe.model.chat_template
    brought = brought.get("default") if isinstance(brought, dict) else brought
    if wanted == "decoder":
        return _decoder_template(model, brought)
    if wanted is not None and wanted != "package":
        return read_chat_template(Path(wanted))
    # Models saved by mm1 0.1 may hold their decoder's: one that says no targets is not what they were trained with.
    if wanted is None and model.from_ is not None and brought is not None and names_targets(brought):
        return brought
    return default_chat_template() if wanted == "package" or "chat" in recipe.data.mixture else None


def _decoder_template(model: ModelRecipe, template: str | None) -> str:
    """Return the template that the decoder brings."""
    key = "model.chat_template: decoder"
    if model.language_model.from_ is None:
        raise UserError(
            f"{key}: no decoder comes with this recipe (model.language_model.from): name the file of its template"
        )
    if template is None:
        raise UserError(f"{key}: '{model.language_model.from_}' brings no chat template: leave the key out")
    if not names_targets(template):
        raise UserError(
            f"{key}: the template of '{model.language_model.from_}' doesn't say what the targets are: copy it to a "
            "file, put {% generation %} and {% endgeneration %} around answers, and name the file"
        )
    return template


def brought_processor(source: str, model: ModelRecipe) -> MM1Processor:
    """Return the processor of the model that training starts from, with what the recipe changes.

    Args:
        source: Its folder.
        model: The recipe's section.

    Raises:
        UserError: If there is no such model, or it has no processor.
    """
    config: Any = pretrained_config(source, "model.from")
    processor = load_processor(source, f"model.from: '{source}'")
    size = model.image_size or processor.image_size
    processor.image_processor.size = {"height": size, "width": size}
    if getattr(config, "connector", None) == "mlp":  # a token for each patch
        processor.tokens_per_image = (size // config.vision_config.patch_size) ** 2
    if "resolution" in model.model_fields_set:
        processor.set_rule(TilingRule.of(model.resolution))
    return processor
