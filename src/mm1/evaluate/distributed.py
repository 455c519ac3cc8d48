"""Scoring on several processes started by `torchrun`: each scores its share of the parts."""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from mm1.ranks import world_size


def join_ranks() -> None:
    """Join the other processes, if `torchrun` started any.

    The process group has a separate prefix in the store: a training in the same processes has left its addresses
    there, and a rank that came early would read those and wait forever.
    """
    if world_size() > 1 and not dist.is_initialized():
        store, rank, size = next(rendezvous("env://"))
        dist.init_process_group("gloo", store=dist.PrefixStore("scoring", store), rank=rank, world_size=size)


def joined_rank() -> tuple[int, int]:
    """Return this process's rank and the number of joined processes; 0 and 1 if none has joined."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def wait_for_all() -> None:
    """Wait until every process has called this function."""
    if joined_rank()[1] > 1:
        dist.barrier()
