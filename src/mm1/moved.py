"""Old names of public modules: they still import, with a warning that gives the new one."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "mm1.data.fetch": "mm1.fetch.pip",
    "mm1.data.index": "mm1.plan.index",
    "mm1.data.loader": "mm1.plan.loader",
    "mm1.data.packing": "mm1.plan.packing",
    "mm1.data.plan": "mm1.plan.plan",
    "mm1.data.preview": "mm1.look.documents",
    "mm1.evaluate.any_model": "mm1.evaluate.models.transformers",
    "mm1.evaluate.generation": "mm1.evaluate.models.mm1",
    "mm1.evaluate.generator": "mm1.evaluate.models.generator",
    "mm1.evaluate.loading": "mm1.evaluate.models.loading",
    "mm1.evaluate.task": "mm1.evaluate.tasks.task",
    "mm1.train.launch": "mm1.launch",
    "mm1.train.run": "mm1.train.run_directory",
}
"""Old name and new one; since 0.2, to go with 0.3."""


def keep_old_names() -> None:
    """Let the old names be imported."""
    sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return a spec whose module is the one under the new name."""
        if name not in MOVED:
            return None
        warnings.warn(f"{name} is now {MOVED[name]}", DeprecationWarning, stacklevel=2)
        return ModuleSpec(name, _Loader(MOVED[name]))


class _Loader(Loader):
    def __init__(self, new: str) -> None:
        self._new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module under the new name."""
        module = importlib.import_module(self._new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back; it has been executed."""
        module.__spec__ = self._spec
