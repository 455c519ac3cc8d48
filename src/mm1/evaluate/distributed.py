"""Scoring on several processes that `torchrun` started: each scores its share of the parts."""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from mm1.ranks import world_size


def join_ranks() -> None:
    """Join the other processes, if `torchrun` started any.

    Under a name of its own in their store: a training in the same processes has left its addresses there, and who
    comes early would read those and wait for ever.
    """
    if world_size() > 1 and not dist.is_initialized():
        store, rank, size = next(rendezvous("env://"))
        named = dist.PrefixStore("scoring", store)
        dist.init_process_group("gloo", store=named, rank=rank, world_size=size)


def joined_rank() -> tuple[int, int]:
    """Return this process's number among those that joined, and how many they are; 0 and 1 where none has."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def wait_for_all() -> None:
    """Return when every process has come this far."""
    if joined_rank()[1] > 1:
        dist.barrier()
