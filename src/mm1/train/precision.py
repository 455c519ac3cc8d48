"""In which precision matrix products run."""

from __future__ import annotations

import torch

from mm1.recipe import TrainRecipe


def autocast_dtype(recipe: TrainRecipe, device: torch.device) -> torch.dtype | None:
    """Return the precision of matrix products (None: float32 throughout).

    Parameters, their gradients' sums and the optimizer's state are float32 in any case.

    Args:
        recipe: Its `dtype`; `auto` is bfloat16 where it pays.
        device: Where the model computes.
    """
    dtype = recipe.dtype
    if dtype == "auto":
        dtype = "bfloat16" if _bfloat16_pays(device) else "float32"
    return torch.bfloat16 if dtype == "bfloat16" else None


def _bfloat16_pays(device: torch.device) -> bool:
    """Whether bfloat16 is faster: on GPUs, and on CPUs that multiply it in hardware (benchmarks/README.md)."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
