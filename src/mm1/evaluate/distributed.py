"""Scoring on several processes (ranks) started by `torchrun`.

    ranks --N hold one model between them--> groups --each takes its share--> parts of a task's items

By default a group is one rank. The ranks of a larger group see the same prompts and compute in lock-step. They must
never decide for themselves what comes next: rounding may differ between them. So the group's first rank decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from mm1.errors import UserError
from mm1.ranks import world_size

T = TypeVar("T")

_PATIENCE = timedelta(days=1)
"""How long a rank waits for those that still have prompts. A lost rank closes its connections, which ends a wait."""
_LOCK_STEP = timedelta(hours=2)
"""How long a rank of a group waits for another one: as long as the library gives ranks that load a model."""


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks that hold one model between them, of which this process is one.

    Attributes:
        number: The group's number.
        count: How many groups there are; each scores its share of the parts.
        rank: This process's number within the group.
        size: How many ranks the group has.
        everyone: All ranks of all groups; None if torch's default process group is that.
    """

    number: int = 0
    count: int = 1
    rank: int = 0
    size: int = 1
    everyone: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the group's rank whose answers count."""
        return self.rank == 0

    @property
    def leads(self) -> bool:
        """Whether this is the rank of all ranks that writes results and shows how far they are."""
        return self.first and self.number == 0

    def from_first(self, call: Callable[[], T]) -> T:
        """Return what a function returns on the group's first rank; the others don't call it."""
        if self.size == 1:
            return call()
        values = [call() if self.first else None]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]  # type: ignore[return-value]  # filled by the first rank

    def first_ranks(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the first rank's tensor; all give one of the same shape and dtype."""
        if self.size == 1:
            return tensor
        shared = tensor.to("cpu", copy=True).contiguous()
        dist.broadcast(shared, src=0)
        return shared.to(tensor.device)


_joined: Group | None = None


def join_ranks(ranks_per_model: int = 1) -> None:
    """Join the other processes, if `torchrun` started any.

    The process group has a separate prefix in the store: a training in the same processes has left its addresses
    there, and a rank that came early would read those and wait forever. For ranks that hold one model between them
    torch's default process group is theirs alone, since the library divides a model over all of that.

    Args:
        ranks_per_model: How many ranks hold one model between them.

    Raises:
        UserError: If the ranks can't be divided into such groups.
    """
    global _joined
    world = world_size()
    if world % ranks_per_model:
        started = "1 rank is" if world == 1 else f"{world} ranks are"
        raise UserError(
            f"ranks_per_model {ranks_per_model}: {started} no multiple of it: start that many, such as "
            f"torchrun --nproc_per_node {ranks_per_model} -m mm1 evaluate"
        )
    if dist.is_initialized() and own_group().size != ranks_per_model:
        raise UserError(
            f"ranks_per_model {ranks_per_model}: these processes have joined already, {own_group().size} for each "
            "model: start new ones"
        )
    if world == 1 or dist.is_initialized():
        return
    store, rank, size = next(rendezvous("env://"))
    if ranks_per_model == 1:
        scoring = dist.PrefixStore("scoring", store)
        dist.init_process_group("gloo", store=scoring, rank=rank, world_size=size, timeout=_PATIENCE)
        return
    number, own = divmod(rank, ranks_per_model)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=dist.PrefixStore(f"scoring, model {number}", store),
        rank=own,
        world_size=ranks_per_model,
        timeout=_LOCK_STEP,
    )
    everyone = dist.ProcessGroupGloo(dist.PrefixStore("scoring, everyone", store), rank, size, _PATIENCE)
    _joined = Group(number, size // ranks_per_model, own, ranks_per_model, everyone)


def own_group() -> Group:
    """Return this process's group: a group for each rank, unless `join_ranks` has made larger ones."""
    if _joined is not None:
        return _joined
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size())
    return Group()


def wait_for_all() -> None:
    """Wait until every process has called this function."""
    group = own_group()
    if group.everyone is not None:
        group.everyone.barrier().wait()
    elif group.count > 1:
        dist.barrier()
