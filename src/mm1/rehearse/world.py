"""Ranks and tensors that are not there: torch's fake process group and fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp._fully_shard import _fsdp_param
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import _disable_current_modes

import mm1.model.attention
import mm1.model.dispatch
import mm1.train.sharding
from mm1.train.parallel import World


class RehearsedWorld(World):
    """Ranks that all have the values of this one."""

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over the ranks."""
        if self.size > 1:
            dist.all_reduce(torch.tensor(values, dtype=torch.float64))
        return [value * self.size for value in values]

    def _gather(self, value: Any) -> list[Any]:
        return [value] * self.size


@contextmanager
def rehearsed_world(size: int, rank: int) -> Iterator[World]:
    """Join a fake process group, and make tensors without contents, until the block ends.

    Args:
        size: The number of ranks.
        rank: This one's number. DTensor remembers shapes by the size of the mesh alone, so a process can be one rank of
            a size only.
    """
    with ExitStack() as stack:
        if size > 1:
            dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
            stack.callback(dist.destroy_process_group)
        # The mesh of ranks is computed by tensors with contents.
        stack.enter_context(patch.object(mm1.train.sharding, "init_device_mesh", _apart(dist.init_device_mesh)))
        for name in ("__getitem__", "_flatten"):
            stack.enter_context(patch.object(DeviceMesh, name, _apart(getattr(DeviceMesh, name))))
        concatenate = staticmethod(_apart(DeviceMesh._concatenate))
        stack.enter_context(patch.object(DeviceMesh, "_concatenate", concatenate))
        # How many tokens each expert gets is not known without contents: here each gets as many.
        counts = partial(_even_counts, read=mm1.model.dispatch.read_counts)
        stack.enter_context(patch.object(mm1.model.dispatch, "read_counts", counts))
        # DTensor finds out the shapes of whole tensors by fake ones of its own.
        shapes = "_propagate_tensor_meta_non_cached"
        stack.enter_context(patch.object(ShardingPropagator, shapes, _apart(getattr(ShardingPropagator, shapes))))
        # On a GPU one kernel computes the attention of all documents.
        stack.enter_context(patch.object(mm1.model.attention, "has_kernel", lambda _, dtype: dtype == torch.bfloat16))
        # transformers takes other ways with fake tensors, since it can't read their values; `Stalls` answers.
        stack.enter_context(patch("transformers.utils.import_utils.is_fake_tensor", lambda _: False))
        # FSDP makes all ranks' parts of a weight to take its own and the first, which takes long for many ranks.
        stack.enter_context(patch.object(_fsdp_param, "_chunk_with_empty", partial(_chunks, rank=rank)))
        # Checkpoints find tied tensors by their addresses.
        stack.enter_context(patch.object(FakeTensor, "data_ptr", _address))
        stack.enter_context(patch.object(FakeTensor, "tolist", _as_list))  # one read, as with contents
        # `Module.to` swaps fake tensors, which it can't while anything refers to them weakly.
        stack.enter_context(patch.object(torch.utils, "swap_tensors", _swap))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield RehearsedWorld(rank, size, torch.device("cpu"))


def _even_counts(
    leaving: torch.Tensor, coming: torch.Tensor, total: int, *, read: Callable[..., Any]
) -> tuple[list[int], list[int]]:
    """Return that every rank sends every rank as many tokens; the host waits for them as ever."""
    read(leaving, coming, total)
    ranks = len(leaving)
    counts = [(place + 1) * total // ranks - place * total // ranks for place in range(ranks)]
    return counts, counts


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata + tensor.storage_offset() * tensor.element_size()


def _chunks(tensor: torch.Tensor, num_chunks: int, dim: int, *, rank: int) -> dict[int, torch.Tensor]:
    """Return the first part of a tensor and this rank's, as `torch.chunk` cuts it."""
    size = -(-tensor.shape[dim] // num_chunks)
    found = {}
    for number in {0, rank % num_chunks}:
        start = min(number * size, tensor.shape[dim])
        length = min(size, tensor.shape[dim] - start)
        found[number] = tensor.narrow(dim, start, length) if length else tensor.new_empty(0)
    return found


def _swap(tensor: torch.Tensor, other: torch.Tensor, *, swap: Any = torch.utils.swap_tensors) -> None:
    if isinstance(tensor, FakeTensor) and tensor.device == other.device:
        tensor.data = other
        return
    if (mode := active_fake_mode()) is not None:
        mode.fake_tensor_converter.meta_converter.tensor_memo.clear()
    swap(tensor, other)


def _as_list(tensor: torch.Tensor) -> Any:
    values: Any = tensor.flatten()[0].item() if tensor.numel() else 0
    for size in reversed(tensor.shape):
        values = [values] * size
    return values


def _apart(function: Any) -> Any:
    """Return a function that runs without any mode around it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return call
