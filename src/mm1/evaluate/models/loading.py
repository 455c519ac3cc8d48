"""Loads a model for scoring by its name."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from mm1.devices import choose_device
from mm1.errors import UserError
from mm1.evaluate.distributed import own_group
from mm1.evaluate.models.divided import division
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.models.transformers import TransformersGenerator
from mm1.model import MM1Config, MM1ForConditionalGeneration
from mm1.model.quantize import check_quantization, quantize_decoder
from mm1.model.resolve import resolve_model
from mm1.nearest import did_you_mean
from mm1.processing.processor import MM1Processor

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_generator(
    path: Path | str,
    *,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "auto",
    plain: bool = False,
    quantize: str | None = None,
) -> MM1Generator | TransformersGenerator:
    """Load a model for scoring: one of ours, or any image-text-to-text model of `transformers`.

    Args:
        path: The model's name (see `mm1.places.MODEL_HELP`). The ranks of a group each load their part of it.
        batch_size: Prompts per forward pass; affects the speed, not the answers.
        device: `auto` (a GPU if there is one), or a torch device.
        dtype: `auto` (float32 on CPU, bfloat16 on GPU), or a torch dtype's name.
        quantize: The precision of the decoder's weights (see `mm1.model.quantize`); None: that of `dtype`.
        plain: Whether another family's model is asked without its chat template. (How ours is asked, prompts say.)

    Raises:
        UserError: If the model doesn't exist, can't be loaded, divided over the ranks of a group or asked so.
    """
    if quantize is not None:
        check_quantization(quantize)
    directory = resolve_model(path)
    where = choose_device(device, "device")
    if dtype == "auto":
        dtype = "float32" if where.type in ("cpu", "mps") else "bfloat16"
    if dtype not in _DTYPES:
        raise UserError(f"dtype '{dtype}' is unknown: {did_you_mean(dtype, ['auto', *_DTYPES])}")
    torch_dtype, ranks = _DTYPES[dtype], own_group().size
    if json.loads((directory / "config.json").read_text()).get("model_type") == MM1Config.model_type:
        divided = division(path, MM1Config.from_pretrained(directory), ranks, where)
        if quantize is not None and ranks > 1:
            raise UserError(f"{path}: a model that several ranks hold can't be quantized: leave quantize out")
        own = MM1ForConditionalGeneration.from_pretrained(directory, dtype=torch_dtype, **divided)
        own.to(where)  # type: ignore[arg-type]  # the library's decorator hides its signature
        quantized = None if quantize is None else quantize_decoder(own, quantize)
        processor = MM1Processor.from_pretrained(directory)
        return MM1Generator(own, processor, batch_size=batch_size, device=where, quantization=quantized)
    if quantize is not None:
        raise UserError(f"{path}: not an MM1 model, and only those are quantized here: leave quantize out")
    try:
        divided = division(path, AutoConfig.from_pretrained(directory), ranks, where)
        model = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch_dtype, **divided)
        processor = AutoProcessor.from_pretrained(directory)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: the model can't be loaded as an image-text-to-text model ({reason}): name another one"
        ) from None
    except RuntimeError as error:  # where the library's plan of a family doesn't fit how its files are laid out
        if ranks == 1:
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: transformers can't load this model in parts ({reason}): leave ranks_per_model out"
        ) from None
    return TransformersGenerator(model, processor, batch_size=batch_size, device=where, chat=False if plain else None)
