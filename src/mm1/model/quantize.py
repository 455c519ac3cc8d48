"""A model with its decoder's weights in 8 or 4 bits, for use, by torchao. Activations keep their precision.

    quantize_decoder(model, "int4")     linear layers of the decoder's blocks: in place, on the device that computes

Tower, connector, norms, embeddings and vocabulary head keep full precision: together they are small beside a decoder's
blocks, the head may be tied to the embeddings, and image features are computed once for a whole answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mm1.errors import UserError
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.parts import blocks_of
from mm1.model.sparse import sparse_blocks
from mm1.nearest import did_you_mean

QUANTIZATIONS = {"int8": "int8, a scale for each row", "int4": "int4, a scale and a zero for each 32 inputs"}
"""What can be asked for, and how results name it."""
_GROUP = 32
"""Inputs that share a scale in int4: torchao's finest."""
_ROWS = 16
"""What torch's 4-bit kernel on a CPU wants the number of outputs to be a multiple of."""


def check_quantization(name: str) -> None:
    """Check that a quantization exists and that torchao is installed.

    Raises:
        UserError: If not.
    """
    if name not in QUANTIZATIONS:
        raise UserError(f"quantize: '{name}' is unknown: {did_you_mean(name, QUANTIZATIONS)}")
    try:
        with _quiet():
            import torchao.quantization  # noqa: F401
    except ImportError:
        raise UserError(f"quantize {name} needs the package torchao: run pip install 'mm1[quantize]'") from None


@torch.no_grad()
def quantize_decoder(model: MM1ForConditionalGeneration, name: str) -> str:
    """Quantize the weights of the linear layers in the decoder's blocks, in place.

    Args:
        model: On the device that it computes on, in float32 or bfloat16; on a GPU, int4 takes bfloat16 alone.
        name: `int8` or `int4`.

    Returns:
        The quantization as results name it.

    Raises:
        UserError: If torchao is missing, or the model has layers that can't be quantized so.
    """
    check_quantization(name)
    decoder: Any = model.model.language_model
    if sparse_blocks(decoder):
        raise UserError(f"quantize {name}: the experts of a sparse decoder can't be quantized here: leave quantize out")
    layers = {
        f"layers.{number}.{place}": module
        for number, block in enumerate(blocks_of(decoder))
        for place, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    if name == "int4":
        _check_sizes(layers, model)
    with _quiet():
        from torchao.quantization import quantize_

        chosen = {id(module) for module in layers.values()}
        quantize_(decoder, _settings(name, model.device), filter_fn=lambda module, _: id(module) in chosen)
    return QUANTIZATIONS[name]


def _check_sizes(layers: dict[str, nn.Linear], model: nn.Module) -> None:
    """Check that every layer can be packed in 4 bits; the library leaves others as they are and says nothing."""
    for place, layer in layers.items():
        outputs, inputs = layer.weight.shape
        if inputs % _GROUP or outputs % _ROWS:
            raise UserError(
                f"quantize int4: {place} has {inputs} inputs and {outputs} outputs, which must be multiples of "
                f"{_GROUP} and {_ROWS}: take int8"
            )
    parameter = next(model.parameters())
    if parameter.device.type == "cuda" and parameter.dtype != torch.bfloat16:
        raise UserError("quantize int4: the GPU's kernel computes in bfloat16: give --dtype bfloat16, or take int8")


def _settings(name: str, device: torch.device) -> Any:
    """Return torchao's settings. It packs 4-bit weights in one way for a CPU and in another for a GPU; scales and zeros
    are chosen in the same way.
    """
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    if name == "int8":
        return Int8WeightOnlyConfig(set_inductor_config=False)
    if device.type != "cpu":
        return Int4WeightOnlyConfig(
            group_size=_GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    try:
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    except ImportError:  # a prototype: its place may change
        raise UserError("quantize int4: this version of torchao has it for GPUs only: take int8") from None
    return PrototypeInt4WeightOnlyConfig(group_size=_GROUP, set_inductor_config=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torchao logs when it is imported: kernels for other machines that it doesn't load."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
