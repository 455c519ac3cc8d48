"""Makes the Auto classes of `transformers` know MM1 without loading `transformers`.

`import mm1` must be light, since every command begins with it. So the model's classes, which register themselves as
`mm1.model` is imported, are imported when somebody else imports `transformers`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_AUTO = "transformers.models.auto"
_AFTER = ("transformers", f"{_AUTO}.modeling_auto", f"{_AUTO}.processing_auto")
"""Modules behind which MM1 registers: the library, and for the case that MM1's own modules loaded that, its Auto
classes. None of them imports another one of them."""


def register_with_transformers() -> None:
    """Register MM1 now if `transformers` is loaded, else as soon as it is."""
    if "transformers" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    """Import the model's classes, unless MM1's own modules are being imported: they come to it by themselves."""
    own = [module for name, module in list(sys.modules.items()) if name.startswith("mm1.")]
    if not any(getattr(module.__spec__, "_initializing", False) for module in own):
        importlib.import_module("mm1.model")


class _Finder(MetaPathFinder):
    """Finds the modules of `_AFTER` as Python does, and registers MM1 when they have been executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of a module of `_AFTER` with a loader that registers; None for every other module."""
        if name not in _AFTER or "mm1.model" in sys.modules:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    """Loads a module with its own loader, then registers MM1."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the module's own loader makes."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module; it keeps its own loader."""
        specification = module.__spec__
        if specification is not None:
            specification.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register()
