"""Communication: every collective that one rank takes part in, and the bytes that it sends."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch.distributed as dist
from torch.distributed._tools.fake_collectives import CollectiveOp, collective_ops, sync_ops

_COLLECTIVES = frozenset(collective_ops - sync_ops)

EXCHANGE = "all-to-all"
DIMENSIONS = ("replicate", "shard", "expert_shard")

Key = tuple[str, str]
"""Mesh dimension and collective."""


class Traffic:
    """Counts collectives and the bytes that this rank sends in them.

    A ring of n ranks gathers or reduces and scatters S bytes by sending (n - 1) / n S from every rank to the next, and
    reduces them everywhere by sending twice as much. S is the size of the whole tensor. To all others a rank sends all
    of its rows but its own.

    Attributes:
        phase: The name under which collectives are counted; set it as the work goes on.
        calls: Number of collectives by phase.
        sent: Bytes that this rank sends, by phase.
    """

    def __init__(self) -> None:
        self.phase = ""
        self.calls: dict[str, Counter[Key]] = {}
        self.sent: dict[str, Counter[Key]] = {}

    def saw(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any, host: bool) -> None:
        """Count an operation if it is a collective.

        Args:
            func: The operation.
            args: Its arguments.
            kwargs: Its named arguments.
            result: Its result.
            host: Whether its tensors are on the host; such collectives go over gloo.
        """
        if func not in _COLLECTIVES:
            return
        group = CollectiveOp.get_process_group(func, args)
        name = _name(func)
        # Of what goes to all, torch counts what comes as well.
        size = args[0].nbytes if name == EXCHANGE else CollectiveOp.get_comm_tensor_size(func, result, args, kwargs)
        key = _dimension(group, name, host), name
        self.calls.setdefault(self.phase, Counter())[key] += 1
        self.sent.setdefault(self.phase, Counter())[key] += _sent(name, size, group.size())


def _name(func: Any) -> str:
    """Return a collective's plain name."""
    name = func.overloadpacket.__name__.strip("_").replace("_", "")
    for part, plain in (("allgather", "all-gather"), ("reducescatter", "reduce-scatter"), ("allreduce", "all-reduce")):
        if part in name:
            return plain
    return EXCHANGE if "alltoall" in name else name


def _sent(name: str, size: int, ranks: int) -> int:
    """Return the bytes that each rank of a ring sends for a tensor of `size` bytes."""
    share = size * (ranks - 1) // ranks
    once = ("all-gather", "reduce-scatter", EXCHANGE)
    return 2 * share if name == "all-reduce" else share if name in once else size


def _dimension(group: dist.ProcessGroup, name: str, host: bool) -> str:
    """Return the mesh dimension that a group is a line of; `host` for sums over gloo."""
    if host:
        return "host"
    if name == EXCHANGE:
        return "expert"  # the only ones that do
    # A dimension over all ranks takes the default group, which has no name.
    dimension = group.group_desc.removeprefix("mesh_")
    return dimension if dimension in DIMENSIONS else "shard"
