"""Loads a model for scoring by its name."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from mm1.devices import choose_device
from mm1.errors import UserError, in_one_line
from mm1.evaluate.distributed import own_group
from mm1.evaluate.models.divided import division
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.models.transformers import TransformersGenerator
from mm1.model import MM1Config, MM1ForConditionalGeneration
from mm1.model.quantize import check_quantization, quantize_decoder
from mm1.model.resolve import resolve_model
from mm1.model.saved import load_config, load_processor, load_saved, model_type
from mm1.nearest import did_you_mean

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
    if model_type(directory, str(path)) == MM1Config.model_type:
        divided = division(path, load_config(directory, str(path)), ranks, where)
        if quantize is not None and ranks > 1:
            raise UserError(f"{path}: a model that several ranks hold can't be quantized: leave quantize out")
        own: MM1ForConditionalGeneration = load_saved(
            MM1ForConditionalGeneration, directory, str(path), dtype=torch_dtype, **divided
        )
        own.to(where)  # type: ignore[arg-type]  # the library's decorator hides its signature
        quantized = None if quantize is None else quantize_decoder(own, quantize)
        processor = load_processor(directory, str(path))
        return MM1Generator(own, processor, batch_size=batch_size, device=where, quantization=quantized)
    if quantize is not None:
        raise UserError(f"{path}: not an MM1 model, and only those are quantized here: leave quantize out")
    try:
        divided = division(path, AutoConfig.from_pretrained(directory), ranks, where)
        model = load_saved(AutoModelForImageTextToText, directory, str(path), dtype=torch_dtype, **divided)
        processor = AutoProcessor.from_pretrained(directory)
    except UserError as error:
        if error.__cause__ is None:
            raise
        # The library's plan of a family may not fit how its files are laid out.
        in_parts = ranks > 1 and isinstance(error.__cause__, RuntimeError)
        raise _not_loaded(path, error.__cause__, in_parts) from None
    except (OSError, ValueError, ImportError) as error:
        raise _not_loaded(path, error) from None
    return TransformersGenerator(model, processor, batch_size=batch_size, device=where, chat=False if plain else None)


def _not_loaded(path: Path | str, error: BaseException, in_parts: bool = False) -> UserError:
    reason = in_one_line(error)
    if in_parts:
        return UserError(f"{path}: transformers can't load this model in parts ({reason}): leave ranks_per_model out")
    return UserError(f"{path}: the model can't be loaded as an image-text-to-text model ({reason}): name another one")
