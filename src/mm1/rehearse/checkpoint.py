"""What a checkpoint and an export take on the host, by their plans."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from mm1.model.join import FILE_BYTES, saved_tensors
from mm1.train.checkpoint import Checkpointer
from mm1.train.parallel import World


def checkpoint_host_bytes(checkpointer: Checkpointer, world: World) -> int:
    """Return the bytes of a copy of this rank's part, and of the file that is put together in memory."""
    return 2 * _planned(checkpointer._tensors(), world)


def export_host_bytes(model: nn.Module, world: World) -> int:
    """Return the bytes of this rank's part and its file, or of the file that the first rank joins, if that is more."""
    tensors = saved_tensors(model)
    part = 2 * _planned(dict(tensors), world)
    if not world.is_first:
        return part
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors.values()]
    return max(part, min(sum(sizes), max(FILE_BYTES, *sizes)))


def _planned(tensors: dict[str, Any], world: World) -> int:
    """Return the bytes that one rank plans to save."""
    planner = DefaultSavePlanner()
    planner.set_up_planner(tensors, is_coordinator=world.is_first)
    found = [item.tensor_data for item in planner.create_local_plan().items if item.tensor_data is not None]
    return sum(math.prod(data.chunk.sizes) * data.properties.dtype.itemsize for data in found)
