"""Memory: every storage that comes and goes while code runs, by kind, on real tensors and on fake ones.

An operation's results, and the storages that FSDP resizes, are written into a log. The kind of a storage may become
known after the storage has been made (a gradient is known as one when it is stored), so the log is read at the end.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Any

import torch
import torch.distributed.fsdp  # whose operations are named here
from torch.distributed.tensor import DTensor

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"
GATHERED, ACTIVATIONS, HOST = "gathered", "activations", "host"
KINDS = (WEIGHTS, GRADIENTS, OPTIMIZER, GATHERED, ACTIVATIONS)
"""Kinds of memory on a device. `gathered`: whole weights and gradients, and the buffers in which they move.
`activations`: everything else, temporary tensors of the optimizer too."""

_GATHERING = {
    torch.ops.c10d._allgather_base_.default: 0,
    torch.ops.c10d._reduce_scatter_base_.default: 1,
    torch.ops.fsdp.chunk_cat.default: 0,
}
"""Operations of FSDP, and which of their arguments is or are gathered."""


class Ledger:
    """Writes down the bytes of all storages that operations make, until they are freed."""

    def __init__(self) -> None:
        self._phase = ""
        self._log: list[tuple[str, int, int]] = []
        self._kinds: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._entries = 0

    @property
    def phase(self) -> str:
        """The name under which changes are written down; set it as the work goes on."""
        return self._phase

    @phase.setter
    def phase(self, name: str) -> None:
        self._phase = name
        self._log.append((name, -1, 0))  # what is there when it begins counts

    def name(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Say of which kind tensors are; those that the ledger hasn't seen are written down.

        Args:
            tensors: Of sharded ones the local part counts.
            kind: One of `KINDS`, or `HOST` for what isn't on the device.
        """
        for tensor in tensors:
            local = tensor._local_tensor if isinstance(tensor, DTensor) else tensor  # `to_local` makes a view, slowly
            self._kinds[self._enter(local.untyped_storage())] = kind

    def peak(self, phases: Container[str], kinds: Sequence[str] = KINDS) -> dict[str, int]:
        """Return the bytes of each kind at the moment of some phases when they are most together."""
        now: Counter[str] = Counter()
        most, best = -1, dict.fromkeys(kinds, 0)
        for name, number, change in self._log:
            kind = self._kinds.get(number, ACTIVATIONS)
            now[kind] += change
            if name in phases and (total := sum(now[k] for k in kinds)) > most:
                most, best = total, {k: now[k] for k in kinds}
        return best

    def made(self, func: Any, args: Any, results: Iterable[torch.Tensor]) -> None:
        """Write down the results of an operation."""
        for tensor in results:
            if tensor.device.type != "meta":
                self._enter(tensor.untyped_storage())
        if func in _GATHERING:
            gathered = args[_GATHERING[func]]
            self.name([gathered] if isinstance(gathered, torch.Tensor) else gathered, GATHERED)

    def resized(self, storage: torch.UntypedStorage) -> None:
        """Write down that a storage has another size."""
        number = self._numbers.get(storage._cdata)
        if number is None:
            return  # of a tensor on the meta device
        self._kinds.setdefault(number, GATHERED)
        before, self._sizes[number] = self._sizes[number], storage.nbytes()
        self._write(number, storage.nbytes() - before)

    def _enter(self, storage: torch.UntypedStorage) -> int:
        key = storage._cdata
        if key not in self._numbers:
            number = self._numbers[key] = self._entries
            self._entries += 1
            self._sizes[number] = storage.nbytes()
            self._write(number, storage.nbytes())
            weakref.finalize(storage, self._leave, key, number)
        return self._numbers[key]

    def _leave(self, key: int, number: int) -> None:
        del self._numbers[key]
        self._write(number, -self._sizes.pop(number))

    def _write(self, number: int, change: int) -> None:
        if change:
            self._log.append((self._phase, number, change))
