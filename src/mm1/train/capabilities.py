"""What a machine can do of what a recipe asks for. It falls back only where the recipe says so, and says it.

attention: flash_attention_2              that or a sentence
attention: [flash_attention_2, sdpa]      the first that there is
compile: true | auto                      that or a sentence | where there is a compiler
dtype: bfloat16 | auto                    that or a sentence | where it pays
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._dynamo.exc import TorchDynamoException
from transformers.utils import is_flash_attn_2_available

from mm1.errors import UserError
from mm1.progress import console
from mm1.recipe import TrainRecipe


def autocast_dtype(recipe: TrainRecipe, device: torch.device) -> torch.dtype | None:
    """Return the precision of matrix products (None: float32 throughout).

    Parameters, their gradients' sums and the optimizer's state are float32 in any case.

    Args:
        recipe: Its `dtype`; `auto` is bfloat16 where it pays.
        device: Where the model computes.

    Raises:
        UserError: If the recipe insists on bfloat16 and a GPU lacks it. (CPUs that lack it are slow, but can.)
    """
    lacking = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if recipe.dtype == "bfloat16" and lacking:
        name = torch.cuda.get_device_name(device)
        raise UserError(f"train.dtype: {name} has no bfloat16: set train.dtype: float32, or auto to take what there is")
    if recipe.dtype == "auto" and lacking:
        console.print("train.dtype: this GPU has no bfloat16: float32 instead")
        return None
    wanted = recipe.dtype == "bfloat16" or (recipe.dtype == "auto" and _bfloat16_pays(device))
    return torch.bfloat16 if wanted else None


def _bfloat16_pays(device: torch.device) -> bool:
    """Whether bfloat16 is faster: on GPUs, and on CPUs that multiply it in hardware (benchmarks/README.md)."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def usable_attention(
    wanted: str | Sequence[str], key: str, device: torch.device, dtype: torch.dtype | None, compiled: bool = False
) -> str:
    """Return the attention to take: the only one wanted, or the first of several that can be had.

    Args:
        wanted: Names that `transformers` knows.
        key: The recipe's key, for the message.
        device: Where the model computes.
        dtype: As `autocast_dtype` gives it.
        compiled: Whether blocks are to be compiled.

    Raises:
        UserError: If none of them can train here.
    """
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    reasons: list[str] = []
    for name in names:
        reason = _missing(name, device, dtype, compiled)
        if reason is None:
            if reasons:
                console.print(f"{key}: {name}, since {' and '.join(reasons)}")
            return name
        reasons.append(f"{name} {reason}")
    raise UserError(f"{key}: {' and '.join(reasons)}: take sdpa, or let it be second: [{', '.join(names)}, sdpa]")


def _missing(attention: str, device: torch.device, dtype: torch.dtype | None, compiled: bool) -> str | None:
    """Return why an attention can't train here, or None if it can."""
    if attention == "sdpa_packed" and compiled:
        return "goes through documents one by one, which train.compile can't"
    if attention == "flex_attention" and device.type == "cpu":
        return "has no backward pass on a CPU"
    if attention == "flash_attention_2":
        if device.type != "cuda":
            return f"needs a GPU, and this is {device.type}"
        if not is_flash_attn_2_available():
            return "needs the package flash-attn"
        if dtype is None:
            return "needs train.dtype: bfloat16"
    return None


def compiles(wanted: bool | str, device: torch.device) -> bool:
    """Return whether to compile; where it is asked for, a small function is compiled to see that it works.

    Args:
        wanted: The recipe's `train.compile`.
        device: Where the model computes.

    Raises:
        UserError: If the recipe insists and there is no compiler.
    """
    if not wanted:
        return False
    try:
        torch.compile(torch.nn.functional.silu)(torch.ones(8, device=device))
    except (TorchDynamoException, RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if wanted != "auto":
            raise UserError(
                f"train.compile: torch.compile does not work on {device} ({reason}): install a compiler (g++ for CPUs, "
                "triton for GPUs), or set train.compile: false, or auto to go without where there is none"
            ) from None
        console.print(f"train.compile: not compiled, since torch.compile does not work on {device} ({reason})")
        return False
    return True
