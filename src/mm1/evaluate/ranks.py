"""Which of several processes this one is: `torchrun` starts them, each scores its share of the parts."""

from __future__ import annotations

import os

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous


def start_ranks() -> None:
    """Join the other processes, if `torchrun` started any.

    Under a name of its own in their store: a training in the same processes has left its addresses there, and who
    comes early would read those and wait for ever.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        store, rank, world = next(rendezvous("env://"))
        named = distributed.PrefixStore("scoring", store)
        distributed.init_process_group("gloo", store=named, rank=rank, world_size=world)


def rank_and_world() -> tuple[int, int]:
    """Return this process's number and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def wait_for_all() -> None:
    """Return when every process has come this far."""
    if rank_and_world()[1] > 1:
        distributed.barrier()


def own_device() -> str:
    """Return `cuda:n` for this process's GPU, or `cpu`."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
