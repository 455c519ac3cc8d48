"""Watches every operation of a block of code, on real tensors and on fake ones."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch._guards import active_fake_mode
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from mm1.rehearse.ledger import Ledger
from mm1.rehearse.stalls import Stalls
from mm1.rehearse.traffic import Traffic


class Watch(TorchDispatchMode):
    """Shows operations to those who count memory, stalls and communication.

    Attributes:
        ledger: Counts memory.
        stalls: Counts where the host waits for the device, and answers what fake tensors can't.
        traffic: Counts collectives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.stalls, self.traffic = Ledger(), Stalls(), Traffic()
        self._resize = torch.UntypedStorage.resize_

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled in here; otherwise every operation asks Dynamo to leave it alone

    def phase(self, name: str) -> None:
        """Begin a phase: what is counted from here on, counts under its name."""
        self.ledger.phase = self.stalls.phase = self.traffic.phase = name

    def collect(self) -> None:
        """Free what is out of reach, so that a later phase doesn't count it."""
        gc.collect()

    def __enter__(self) -> Watch:
        """Begin to watch."""
        self._fake_mode = active_fake_mode()
        resize, ledger = self._resize, self.ledger

        def resize_and_count(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            ledger.resized(storage)
            return result

        torch.UntypedStorage.resize_ = resize_and_count  # type: ignore[method-assign, assignment]  # FSDP frees weights by it
        self._calls = self.stalls.calls()
        self._calls.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop watching."""
        super().__exit__(*error)
        self._calls.__exit__(*error)
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and show it."""
        kwargs = kwargs or {}
        if DTensor in types:
            if not func.__name__.startswith(_ELEMENTWISE):
                return NotImplemented  # it comes back as operations on local tensors
            return _like(self._run(func, _local(args), _local(kwargs)), args[0])
        return self._run(func, args, kwargs)

    def _run(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        if active_fake_mode() is not self._fake_mode:
            return func(*args, **kwargs)  # DTensor finds out shapes
        host = self.stalls.on_host(func, args, kwargs)
        if self.stalls.stalls(func, args, host) and self._fake_mode is not None:
            result = self.stalls.answer(func, args, kwargs)
        else:
            result = func(*args, **kwargs)
        results = _tensors(result)
        self.ledger.made(func, args, results)
        if host:
            self.stalls.mark(results)
        self.traffic.saw(func, args, kwargs, result, host)
        return result


_ELEMENTWISE = (
    "_fused_adamw",
    *(
        f"_foreach_{name}"
        for name in ("add", "sub", "mul", "div", "lerp", "addc", "sqrt", "neg", "pow", "maximum", "copy")
    ),
)
"""Operations on lists of tensors that give the same by rank as on the whole. DTensor takes up to half of a rehearsal's
time to find this out: it compares every tensor of a list with all others."""


def _local(value: Any) -> Any:
    """Return the local parts of sharded tensors, however deep they lie."""
    if isinstance(value, DTensor):
        return value._local_tensor
    if isinstance(value, tuple | list):
        return type(value)(map(_local, value))
    return {key: _local(part) for key, part in value.items()} if isinstance(value, dict) else value


def _like(results: Any, tensors: Any) -> Any:
    """Return local results as tensors that are sharded as others are."""
    if not isinstance(results, tuple | list):
        return results
    return [
        DTensor.from_local(
            one, other.device_mesh, other.placements, run_check=False, shape=other.shape, stride=other.stride()
        )
        if isinstance(other, DTensor)
        else one
        for one, other in zip(results, tensors, strict=True)
    ]


def _tensors(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in _tensors(part)]
    return []
