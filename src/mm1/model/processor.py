"""The processor of a recipe's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mm1.errors import UserError
from mm1.model.pretrained import pretrained_config
from mm1.model.towers import pixel_statistics
from mm1.processing.chat import default_chat_template, read_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tiles import TilingRule
from mm1.recipe import ModelRecipe, Recipe


def recipe_processor(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> MM1Processor:
    """Return the processor of a recipe's model: its image size and tokens per image, its tower's pixel statistics.

    Args:
        recipe: Every `from` is a folder (see `mm1.model.resolve.resolve_models`).
        tokenizer: Of the decoder.
    """
    model = recipe.model
    if model.from_ is not None:
        processor = brought_processor(model.from_, model)
    else:
        mean, std = pixel_statistics(model.vision.from_)
        processor = build_processor(
            tokenizer, model.vision.image_size, model.connector.num_tokens, mean, std, resolution=model.resolution
        )
    template: Any = processor.chat_template
    if model.chat_template is not None:
        template = read_chat_template(Path(model.chat_template))
    elif template is None and "chat" in recipe.data.mixture:
        template = default_chat_template()
    processor.chat_template = template
    return processor


def brought_processor(source: str, model: ModelRecipe) -> MM1Processor:
    """Return the processor of the model that training starts from, with what the recipe changes.

    Args:
        source: Its folder.
        model: The recipe's section.

    Raises:
        UserError: If there is no such model, or it has no processor.
    """
    config: Any = pretrained_config(source, "model.from")
    try:
        processor: MM1Processor = MM1Processor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UserError(f"model.from: '{source}' has no processor that can be loaded ({error})") from None
    size = model.image_size or processor.image_size
    processor.image_processor.size = {"height": size, "width": size}
    if getattr(config, "connector", None) == "mlp":  # a token for each patch
        processor.tokens_per_image = (size // config.vision_config.patch_size) ** 2
    if "resolution" in model.model_fields_set:
        processor.set_rule(TilingRule.of(model.resolution))
    return processor
