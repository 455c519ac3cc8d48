"""Communication: every collective that one rank takes part in, and the bytes that it sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch._guards import active_fake_mode
from torch.distributed._tools.fake_collectives import CollectiveOp, collective_ops, sync_ops
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from mm1.rehearse.stalls import Stalls

Key = tuple[str, str, str]
"""Phase, mesh dimension, collective."""


class Traffic(TorchDispatchMode):
    """Counts collectives and the bytes that this rank sends in them.

    A ring of n ranks gathers or reduces and scatters S bytes by sending (n - 1) / n S from every rank to the next, and
    reduces them everywhere by sending twice as much. S is the size of the whole tensor.

    Attributes:
        phase: The name under which collectives are counted; set it as the work goes on.
        calls: Number of collectives.
        sent: Bytes that this rank sends.

    Args:
        stalls: Knows which tensors are on the host, whose collectives go over gloo.
    """

    def __init__(self, stalls: Stalls) -> None:
        super().__init__()
        self.phase = ""
        self.calls: Counter[Key] = Counter()
        self.sent: Counter[Key] = Counter()
        self._stalls = stalls

    def __enter__(self) -> Traffic:
        """Begin to count."""
        self._fake_mode = active_fake_mode()
        super().__enter__()
        return self

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it if it is a collective."""
        if any(issubclass(t, DTensor) for t in types):
            return NotImplemented
        result = func(*args, **(kwargs or {}))
        if func in collective_ops - sync_ops and active_fake_mode() is self._fake_mode:
            group = CollectiveOp.get_process_group(func, args)
            size = CollectiveOp.get_comm_tensor_size(func, result, args, kwargs)
            name = _name(func)
            key = self.phase, _dimension(group, self._stalls.on_host(args)), name
            self.calls[key] += 1
            self.sent[key] += _sent(name, size, group.size())
        return result


def _name(func: Any) -> str:
    """Return a collective's plain name."""
    name = func.overloadpacket.__name__.strip("_").replace("_", "")
    for part, plain in (("allgather", "all-gather"), ("reducescatter", "reduce-scatter"), ("allreduce", "all-reduce")):
        if part in name:
            return plain
    return "all-to-all" if "alltoall" in name else name


def _sent(name: str, size: int, ranks: int) -> int:
    """Return the bytes that each rank of a ring sends for a tensor of `size` bytes."""
    share = size * (ranks - 1) // ranks
    return {"all-reduce": 2 * share, "all-gather": share, "reduce-scatter": share}.get(name, size)


def _dimension(group: dist.ProcessGroup, host: bool) -> str:
    """Return the mesh dimension that a group is a line of: `shard`, `replicate`, or `host` for sums over gloo."""
    if host:
        return "host"
    ranks = dist.get_process_group_ranks(group)
    return "replicate" if len(ranks) > 1 and ranks[1] - ranks[0] > 1 else "shard"
