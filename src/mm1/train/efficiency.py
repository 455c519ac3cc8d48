"""How well a device is used: the FLOPs of a micro-batch and the device's peak."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

from mm1.model.sizes import UnitFlops, flops_per_step
from mm1.plan.loader import Batch
from mm1.recipe import TrainRecipe
from mm1.scaling.gpus import device_peak

_SIDE = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices that measure the peak; one product takes a few hundredths of a second."""
_SECONDS = 0.3


def batch_flops(units: UnitFlops, recipe: TrainRecipe) -> Callable[[Batch], float]:
    """Return a function that computes the FLOPs of a micro-batch, forward and backward.

    It counts the actual content of the batch: tokens without padding, attention inside documents, the vocabulary head
    for target tokens, images. It doesn't count the recomputation of activation checkpointing.

    Args:
        units: The model's FLOPs per unit.
        recipe: Gives `freeze` and `lora`. Adapters themselves are too small to count.
    """

    def flops(batch: Batch) -> float:
        step = flops_per_step(
            units,
            tokens=batch["tokens"],
            # Positions count from 0 in every document, and are 0 in padding. The batch is in the host's memory.
            pairs=int(batch["position_ids"].numpy().sum()) + batch["tokens"],
            target_tokens=batch["count"],
            images=batch["images"],
            frozen=recipe.unchanged,
        )
        return sum(step.values())

    return flops


def peak_flops(device: torch.device, autocast: torch.dtype | None) -> tuple[float, str]:
    """Return the peak FLOP/s of a device and the origin of the number.

    Args:
        device: For a GPU in the table of `mm1.scaling.gpus` in bfloat16, the peak is the maker's figure; otherwise it
            is measured, in well under a second, with the product of two large matrices.
        autocast: The precision of matrix products; None: float32.
    """
    dtype = autocast or torch.float32
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        if known := device_peak(name):
            return known, f"stated for {name}"
    side = _SIDE.get(device.type, 2048)
    return _measure(device, dtype, side), f"measured: the best product of two {side} x {side} matrices"


@cache
def _measure(device: torch.device, dtype: torch.dtype, side: int) -> float:
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best
