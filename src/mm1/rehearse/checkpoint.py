"""What a checkpoint and an export take on the host, by the plan of the checkpoint."""

from __future__ import annotations

import math

from torch import nn
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.utils._python_dispatch import _disable_current_modes

from mm1.model.join import FILE_BYTES, MODEL_PREFIX, saved_tensors
from mm1.train.checkpoint import Checkpointer
from mm1.train.parallel import World


def host_bytes(checkpointer: Checkpointer, model: nn.Module, world: World) -> tuple[int, int]:
    """Return the bytes on the host of this rank's checkpoint and of its export.

    A checkpoint takes a copy of the rank's part, and the file that is put together in memory. An export takes the
    same of the model alone, or the file that the first rank joins, if that is more.
    """
    planned = _planned(checkpointer, world)
    tensors = saved_tensors(model)
    exported = 2 * sum(planned.get(MODEL_PREFIX + name, 0) for name in tensors)
    if world.is_first:
        sizes = [tensor.numel() * tensor.element_size() for tensor in tensors.values()]
        exported = max(exported, min(sum(sizes), max(FILE_BYTES, *sizes)))
    return 2 * sum(planned.values()), exported


def _planned(checkpointer: Checkpointer, world: World) -> dict[str, int]:
    """Return the bytes that one rank plans to save, by the names of tensors."""
    tensors, planner = checkpointer._tensors(), DefaultSavePlanner()
    with _disable_current_modes():  # the plan computes with small tensors of its own
        planner.set_up_planner(tensors, is_coordinator=world.is_first)
        items = planner.create_local_plan().items
    sizes: dict[str, int] = {}
    for item in items:
        if (data := item.tensor_data) is not None:
            size = math.prod(data.chunk.sizes) * data.properties.dtype.itemsize
            sizes[item.index.fqn] = sizes.get(item.index.fqn, 0) + size
    return sizes
