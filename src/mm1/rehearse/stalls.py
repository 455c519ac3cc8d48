"""Stalls: where the host waits for the device, because it reads a value or because a shape depends on one.

A rehearsal has only one device, so tensors are followed: what is made without naming a device, and what is computed
from such tensors alone, is on the host; everything else is on the device.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

READ, SHAPE, COPY = "value read", "shape from values", "copy from the host"

_aten = torch.ops.aten
_READS = {_aten._local_scalar_dense.default: READ, _aten.equal.default: READ}
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
_TORCH = str(Path(torch.__file__).parent)

Place = tuple[str, str]
"""What waits, and where: `file:line function`."""


class Stalls:
    """Counts what makes the host wait for the device, by phase and place.

    On fake tensors it answers what has no answer: a value read is 1 (a condition: false), and a shape that depends on
    values is the largest possible.

    Attributes:
        phase: The name under which stalls are counted; set it as the work goes on.
        counts: Number of stalls by phase and place.
    """

    def __init__(self) -> None:
        self.phase = ""
        self.counts: dict[str, Counter[Place]] = {}
        self._host: set[int] = set()
        self._within = False

    def on_host(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Return whether the result of an operation is on the host."""
        if func is _aten.lift_fresh.default:  # torch.tensor(...)
            return True
        if kwargs.get("device") is not None:
            return False
        return all(_key(tensor) in self._host for tensor in _tensors((*args, *kwargs.values())))

    def mark(self, tensors: Iterable[torch.Tensor]) -> None:
        """Say that tensors are on the host."""
        for tensor in tensors:
            if (key := _key(tensor)) not in self._host:
                self._host.add(key)
                weakref.finalize(tensor.untyped_storage(), self._host.discard, key)

    def to_device(self, tensors: Iterable[Any]) -> None:
        """Say that tensors are on the device from now on."""
        for tensor in _tensors(tensors):
            self._host.discard(_key(tensor))

    def count(self, reason: str) -> None:
        """Count that the host waits here."""
        self.counts.setdefault(self.phase, Counter())[reason, _place()] += 1

    def stalls(self, func: Any, args: Any, host: bool) -> bool:
        """Return whether an operation reads values back; count it if they are the device's."""
        reason = _READS.get(func) or (SHAPE if func in _SHAPES or _index_by_mask(func, args) else None)
        if reason and not host and not self._within:
            self.count(reason)
        return reason is not None

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Watch calls that leave no trace in operations: tensors read as a whole, and copied from the host."""
        with _Calls(self):
            yield

    @contextmanager
    def within(self) -> Iterator[None]:
        """Count no operations of a call that counts as a whole."""
        self._within = True
        yield
        self._within = False

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return an answer where fake tensors have none."""
        first = args[0]
        if func in _READS:
            if isinstance(first, FakeTensor) and first.constant is not None:
                return func(first.constant, *args[1:], **kwargs)
            if first.dtype == torch.bool or func is _aten.equal.default:
                return False
            return 1.0 if first.is_floating_point() else 1
        if func is _aten.nonzero.default:
            return first.new_empty((first.numel(), first.ndim), dtype=torch.int64)
        if func is _aten.masked_select.default:
            return first.new_empty(first.numel())
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    def __init__(self, stalls: Stalls) -> None:
        super().__init__()
        self._stalls = stalls

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy):
            if not self._stalls.on_host(func, args, {}):
                self._stalls.count(READ)
            with self._stalls.within():
                return func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") not in (None, "cpu"):
            self._stalls.count(COPY)
            result = func(*args, **kwargs)
            self._stalls.to_device([result])
            return result
        return func(*args, **kwargs)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _key(tensor: torch.Tensor) -> int:
    local = tensor._local_tensor if isinstance(tensor, DTensor) else tensor  # `to_local` makes a view, slowly
    return local.untyped_storage()._cdata


def _index_by_mask(func: Any, args: Any) -> bool:
    if func not in (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default):
        return False
    return any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])


def _place() -> str:
    """Return where the running operation was called from: the nearest line outside of torch, and of this package."""
    frame: FrameType | None = sys._getframe(1)
    library = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_HERE, _TORCH)):
            name = f"{frame.f_lineno} {frame.f_code.co_name}"
            if file.startswith(_OURS):
                return f"{Path(file).relative_to(_OURS)}:{name}" + (f", in {library}" if library else "")
            library = library or f"{'/'.join(Path(file).parts[-2:])}:{name}"
        frame = frame.f_back
    return library
