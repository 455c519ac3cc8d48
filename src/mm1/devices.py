"""Which device this process computes on."""

from __future__ import annotations

import torch

from mm1.errors import UserError
from mm1.ranks import local_rank


def choose_device(name: str, key: str) -> torch.device:
    """Return the device that a name stands for, which works on this machine.

    Args:
        name: `auto` (a GPU if there is one, of NVIDIA, AMD or Apple, else the CPU), or a torch device. `cuda` without a
            number is the GPU of this process: on a machine with several ranks, each has its own.
        key: What errors call the setting, such as `train.device`.

    Raises:
        UserError: If torch knows no such device, or this machine has none.
    """
    wanted = _best() if name == "auto" else name
    try:
        device = torch.device(f"cuda:{local_rank()}" if wanted == "cuda" else wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{key}: '{wanted}' can't be used here ({reason}): set it to cpu, auto or another device"
        ) from None
    return device


def _best() -> str:
    """Return the device that `auto` stands for: CUDA (ROCm too), MPS on Apple's machines, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
