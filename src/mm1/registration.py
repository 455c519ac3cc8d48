"""Makes the Auto classes of `transformers` know MM1 without loading `transformers`.

`import mm1` is light, since every command begins with it. MM1's classes register themselves when `mm1.model` is
imported. That happens here as soon as `transformers` is loaded and no module of MM1 is half-way through its own import.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_with_transformers() -> None:
    """Register MM1 now if `transformers` is loaded, else as soon as it is; calls after the first change nothing.

    vLLM calls it in each of its processes (entry point `vllm.general_plugins`).
    """
    if "transformers" in sys.modules:
        importlib.import_module("mm1.model")
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder):
    """Sees `transformers` and MM1's modules (which may load it) being imported, until MM1 is registered."""

    def __init__(self) -> None:
        self._under_way = 0

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that the other finders have for a module, so changed that its import is seen."""
        if name != "transformers" and not name.startswith("mm1."):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            # Set on the one loader: whatever else asks for it (`python -m`, resources, sources) finds it as it was.
            # Hence mypy's complaint about a method that is assigned to.
            spec.loader.exec_module = lambda module: self._execute(module, execute)  # type: ignore[method-assign]
        return spec

    def _execute(self, module: ModuleType, execute: Callable[[ModuleType], None]) -> None:
        """Execute a module; register MM1 if it was the last one under way and `transformers` is there."""
        self._under_way += 1
        try:
            execute(module)
        finally:
            self._under_way -= 1
        if not self._under_way and "transformers" in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            importlib.import_module("mm1.model")
