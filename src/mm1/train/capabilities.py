"""Checks whether the machine can do what a recipe asks for. A fallback happens only where the recipe allows it, and is
printed.

attention: flash_attention_2              this one, or an error
attention: [flash_attention_2, sdpa]      the first that works
compile: true | auto                      compiled, or an error | compiled if there is a compiler
dtype: bfloat16 | auto                    bfloat16, or an error | bfloat16 where it is faster
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._dynamo.exc import TorchDynamoException
from transformers.utils import is_flash_attn_2_available

from mm1.errors import UserError
from mm1.model.attention import NAMES as PACKED
from mm1.progress import console
from mm1.recipe import LanguageModelRecipe, TrainRecipe

_SHORT_ROW = 512
"""Tokens of a row up to which `eager` is the fastest in bfloat16 on a CPU; measured at 256."""


def autocast_dtype(recipe: TrainRecipe, device: torch.device, begun: str | None = None) -> torch.dtype | None:
    """Return the precision of matrix products (None: float32 throughout).

    Parameters, summed gradients and the optimizer's state are always float32.

    Args:
        recipe: Gives `dtype`; `auto` is bfloat16 where it is faster.
        device: The model's device.
        begun: The precision that the run has been trained in so far (`float32` or `bfloat16`), which `auto` then
            stands for; None: the run begins.

    Raises:
        UserError: If bfloat16 is required and the GPU lacks it. (A CPU that lacks it computes it slowly.)
    """
    lacking = device.type == "cuda" and _lacks_bfloat16()
    if recipe.dtype == "auto" and begun is not None:
        if begun == "bfloat16" and lacking:
            raise UserError(
                f"train.dtype: this run began in bfloat16, which {torch.cuda.get_device_name(device)} lacks: resume it "
                "on another device, or start another run with --to"
            )
        return torch.bfloat16 if begun == "bfloat16" else None
    if recipe.dtype == "bfloat16" and lacking:
        name = torch.cuda.get_device_name(device)
        raise UserError(f"train.dtype: {name} has no bfloat16: set train.dtype: float32, or auto to choose by machine")
    if recipe.dtype == "auto" and lacking:
        console.print("train.dtype: this GPU has no bfloat16; training in float32")
        return None
    bfloat16 = recipe.dtype == "bfloat16" or (recipe.dtype == "auto" and multiplies_bfloat16(device))
    return torch.bfloat16 if bfloat16 else None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 in hardware, where it is faster (benchmarks/README.md).

    Apple's GPUs (MPS) count as without, since mm1 was never tried there.
    """
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type != "mps" and not (device.type == "cuda" and _lacks_bfloat16())


def _lacks_bfloat16() -> bool:
    return not torch.cuda.is_bf16_supported(including_emulation=False)


def usable_attention(
    requested: str | Sequence[str], key: str, device: torch.device, dtype: torch.dtype | None, compiled: bool = False
) -> str:
    """Return the attention to use: the requested one, or the first of several that works on the machine.

    Args:
        requested: One name of `transformers`, or several in order of preference.
        key: The recipe's key, for messages.
        device: The model's device.
        dtype: The result of `autocast_dtype`.
        compiled: Whether the model's blocks are compiled.

    Raises:
        UserError: If none of them can train here.
    """
    names = [requested] if isinstance(requested, str) else list(requested)
    reasons: list[str] = []
    for name in names:
        reason = _why_unusable(name, device, dtype, compiled)
        if reason is None:
            if reasons:
                console.print(f"{key}: using {name}, since {' and '.join(reasons)}")
            return name
        reasons.append(f"{name} {reason}")
    raise UserError(f"{key}: {' and '.join(reasons)}: set it to sdpa, or to a list: [{', '.join(names)}, sdpa]")


def _why_unusable(attention: str, device: torch.device, dtype: torch.dtype | None, compiled: bool) -> str | None:
    """Return why an attention can't train here, or None if it can."""
    if attention in PACKED and device.type == "cuda" and dtype is None:
        return "needs train.dtype: bfloat16 on a GPU"
    if attention in PACKED and compiled and device.type != "cuda":
        return "computes documents one by one, which train.compile does not support"
    if attention == "flex_attention" and device.type == "cpu":
        return "has no backward pass on a CPU"
    if attention == "flash_attention_2":
        if device.type != "cuda":
            return f"needs a GPU, and the device is {device.type}"
        if not is_flash_attn_2_available():
            return "needs the package flash-attn"
        if dtype is None:
            return "needs train.dtype: bfloat16"
    return None


def decoder_attention(
    recipe: LanguageModelRecipe,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    sequence_length: int = 0,
    compiled: bool = False,
) -> str | Sequence[str]:
    """Return the attention that a recipe asks for, or else the fastest one as measured (benchmarks/README.md).

    `varlen` computes no pairs of tokens of different documents. On a CPU in bfloat16 one large product for a short row
    is faster than a small one for each document.

    Args:
        recipe: Names an attention, or doesn't.
        device: The model's device.
        dtype: The result of `autocast_dtype`.
        sequence_length: Tokens of a row; 0: unknown.
        compiled: Whether the model's blocks are compiled.
    """
    if "attention" in recipe.model_fields_set:
        return recipe.attention
    if device.type == "cuda":
        return ["varlen", "sdpa"]
    if device.type == "cpu" and 0 < sequence_length <= _SHORT_ROW and (dtype is not None or compiled):
        return "eager"
    return "varlen" if device.type == "cpu" and not compiled else recipe.attention


def compiles(requested: bool | str, device: torch.device) -> bool:
    """Return whether to compile. If the recipe asks for it, a small function is compiled as a test.

    Args:
        requested: The recipe's `train.compile`.
        device: The model's device.

    Raises:
        UserError: If the recipe requires compilation and there is no compiler.
    """
    if not requested:
        return False
    try:
        torch.compile(torch.nn.functional.silu)(torch.ones(8, device=device))
    except (TorchDynamoException, RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if requested != "auto":
            raise UserError(
                f"train.compile: torch.compile does not work on {device} ({reason}): install a compiler (g++ for CPUs, "
                "triton for GPUs), or set train.compile: false, or auto to compile only where there is a compiler"
            ) from None
        console.print(f"train.compile: not compiled, since torch.compile does not work on {device} ({reason})")
        return False
    return True
