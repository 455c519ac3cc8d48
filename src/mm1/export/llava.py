"""LLaVA's format: a folder that `LlavaForConditionalGeneration` loads, and whatever reads LLaVA.

LLaVA's format has an MLP connector of two layers that makes a token of every patch, a dense decoder, and one square
image a picture. It has no place for other connectors (they make fewer tokens than there are patches), sparse layers,
sub-images, and features behind a tower's final norm; such models are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration, LlavaProcessor

from mm1.errors import UserError
from mm1.export.check import compare, load, sample_batch
from mm1.model.llava import to_llava
from mm1.processing.processor import MM1Processor
from mm1.processing.tiles import TilingRule


def write_llava(source: Path, folder: Path) -> str:
    """Write a model to a folder in LLaVA's format.

    Args:
        source: A folder of an MM1.
        folder: An existing, empty folder.

    Returns:
        The largest difference of logits, of the folder against the model, in a sentence.

    Raises:
        UserError: If the model is not a LLaVA in shape.
    """
    model, processor = load(source)
    llava, llava_processor = to_llava(model), _processor(processor, model.config)
    llava.generation_config = model.generation_config
    llava.save_pretrained(folder)
    llava_processor.save_pretrained(folder)
    texts, pictures = sample_batch()
    given = {"text": texts, "images": pictures, "padding": True, "return_tensors": "pt"}
    written = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        found, wanted = (
            one(**inputs).logits[inputs["attention_mask"].bool()]
            for one, inputs in (
                (written, LlavaProcessor.from_pretrained(folder)(**given)),
                (model, processor(**given)),
            )
        )
    return compare(found, wanted)


def _processor(processor: MM1Processor, config: Any) -> LlavaProcessor:
    """Return LLaVA's processor with the same tokens and pixels."""
    rule, vision = processor.rule, config.vision_config
    if rule != TilingRule():
        raise UserError(
            f"the model can't be exported to LLaVA: its pictures are cut or padded (fit {rule.fit}, grid {rule.grid}), "
            "and LLaVA's format takes a picture as one square"
        )
    ours = processor.image_processor
    size = {"height": processor.image_size, "width": processor.image_size}
    pixels = CLIPImageProcessorPil(
        size=size, crop_size=size, do_center_crop=False, image_mean=ours.image_mean, image_std=ours.image_std
    )
    has_cls = vision.model_type in ("clip_vision_model", "dinov2")  # which LLaVA's strategy `default` drops
    return LlavaProcessor(
        image_processor=pixels,
        tokenizer=processor.tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default" if has_cls else "full",
        chat_template=processor.chat_template,
        num_additional_image_tokens=int(has_cls),
    )
