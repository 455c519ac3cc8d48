"""Stalls: where the host waits for the device, because it reads a value or because a shape depends on one.

A rehearsal has only one device, so tensors are followed: what is made without naming a device, and what is computed
from such tensors alone, is on the host; everything else is on the device.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

_aten = torch.ops.aten
_READS = {_aten._local_scalar_dense.default: "value read", _aten.equal.default: "value read"}
_SHAPES = {
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.unique_consecutive.default,
    _aten.unique_dim.default,
    _aten.repeat_interleave.Tensor,
    _aten.bincount.default,
}
_OURS = str(Path(__file__).parent.parent)
_HERE = str(Path(__file__).parent)

Place = tuple[str, str]
"""What waits, and where: `file:line function`."""


class Stalls(TorchDispatchMode):
    """Counts what makes the host wait for the device, by phase and place.

    On fake tensors it answers what has no answer: a value read is 1 (a condition: false), and a shape that depends on
    values is the largest possible.

    Attributes:
        phase: The name under which stalls are counted; set it as the work goes on.
        counts: Number of stalls by phase and place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = ""
        self.counts: dict[str, Counter[Place]] = {}
        self._host = WeakIdKeyDictionary()

    def on_host(self, args: Any) -> bool:
        """Return whether all tensors among arguments are on the host."""
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        return bool(tensors) and all(tensor.untyped_storage() in self._host for tensor in tensors)

    def to_device(self, tensors: Any) -> None:
        """Say that tensors are on the device."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, torch.Tensor):
                self._host.pop(tensor.untyped_storage(), None)

    def __enter__(self) -> Stalls:
        """Begin to count."""
        self._fake_mode = active_fake_mode()
        super().__enter__()
        return self

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, or answer in its place; count it if it stalls."""
        kwargs = kwargs or {}
        if any(issubclass(t, DTensor) for t in types):
            return NotImplemented
        if active_fake_mode() is not self._fake_mode:
            return func(*args, **kwargs)
        host = self._is_host(func, args, kwargs)
        what = _READS.get(func) or ("shape from values" if func in _SHAPES or _index_by_mask(func, args) else None)
        if what and not host:
            self.counts.setdefault(self.phase, Counter())[what, _place()] += 1
        result = _answer(func, args, kwargs) if what and self._fake_mode else func(*args, **kwargs)
        if host:
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    self._host[tensor.untyped_storage()] = True
        return result

    def _is_host(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        if kwargs.get("device") is not None:
            return False
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func is _aten.lift_fresh.default:
            return True
        return all(tensor.untyped_storage() in self._host for tensor in tensors)


def _index_by_mask(func: Any, args: Any) -> bool:
    if func not in (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default):
        return False
    return any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])


def _answer(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return an answer where fake tensors have none."""
    first = args[0]
    if func in _READS:
        if isinstance(first, FakeTensor) and first.constant is not None:
            return func(first.constant, *args[1:], **kwargs)
        return False if first.dtype == torch.bool or func is _aten.equal.default else 1.0 if first.is_floating_point() else 1
    if func is _aten.nonzero.default:
        return first.new_empty((first.numel(), first.ndim), dtype=torch.int64)
    if func is _aten.masked_select.default:
        return first.new_empty(first.numel())
    return func(*args, **kwargs)


def _place() -> str:
    """Return where the running operation was called from: the nearest line of this package, else of a library."""
    frame: FrameType | None = sys._getframe(1)
    nearest = None
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS) and not file.startswith(_HERE):
            return _line(frame, str(Path(file).relative_to(_OURS)))
        if nearest is None and "torch/" not in file and not file.startswith(_HERE):
            nearest = frame
        frame = frame.f_back
    return "?" if nearest is None else _line(nearest, "/".join(Path(nearest.f_code.co_filename).parts[-2:]))


def _line(frame: FrameType, file: str) -> str:
    return f"{file}:{frame.f_lineno} {frame.f_code.co_name}"
