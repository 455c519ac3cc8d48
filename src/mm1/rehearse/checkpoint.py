"""What a checkpoint takes, by its plan."""

from __future__ import annotations

import math

from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from mm1.train.checkpoint import Checkpointer
from mm1.train.parallel import World


def planned_bytes(checkpointer: Checkpointer, world: World) -> int:
    """Return the bytes that one rank plans to save: its shards of weights, buffers and the optimizer's state."""
    planner = DefaultSavePlanner()
    planner.set_up_planner(checkpointer._tensors(), is_coordinator=world.is_first)
    tensors = [item.tensor_data for item in planner.create_local_plan().items if item.tensor_data is not None]
    return sum(math.prod(data.chunk.sizes) * data.properties.dtype.itemsize for data in tensors)
