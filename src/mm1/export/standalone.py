"""MM1's own modules for a model's folder, so that it loads where mm1 is not installed.

    mm1.model.modeling  -->  FOLDER/mm1_model_modeling.py     from mm1.errors import ..  -->  from .mm1_errors import ..

The modules are the package's, as they are but for their imports; there is no other copy of the model. Taken are those
that configuration, model and processor import. The library wants them beside one another, hence their names.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import transformers

from mm1.auto_map import CODE
from mm1.model import MM1Config, MM1ForConditionalGeneration, MM1Model, MM1Processor
from mm1.version import __version__

_CLASSES: tuple[Any, ...] = (MM1Config, MM1ForConditionalGeneration, MM1Model, MM1Processor)
_HEAD = (
    f"# Part of mm1 {__version__}, written into this folder by `mm1 export --standalone`; tried with transformers "
    f"{transformers.__version__}.\n# SPDX-License-Identifier: Apache-2.0\n"
)


def write_standalone_code(folder: Path) -> None:
    """Write the code to a model's folder in the place of the file that imports it from mm1."""
    for name, text in standalone_code().items():
        (folder / name).write_text(text, "utf-8")


def standalone_code() -> dict[str, str]:
    """Return the text of every file, by the file's name."""
    files: dict[str, str] = {}
    waiting = sorted({cls.__module__ for cls in _CLASSES})
    entry = "".join(f"from {cls.__module__} import {cls.__name__}  # noqa: F401\n" for cls in _CLASSES)
    files[CODE] = _HEAD + _relative(entry)[0]
    while waiting:
        module = waiting.pop()
        if (name := f"{_flat(module)}.py") not in files:
            text, needed = _relative(inspect.getsource(import_module(module)))
            files[name] = _HEAD + text
            waiting += needed
    return files


def _flat(module: str) -> str:
    return module.replace(".", "_")


def _relative(source: str) -> tuple[str, list[str]]:
    """Return a module's text with relative imports, and the modules of mm1 that it imports.

    What only a type checker imports is left out: it may lie in rooms that a model doesn't need.

    Raises:
        ValueError: If it imports in another way than `from mm1.module import name`.
    """
    lines, needed = source.splitlines(keepends=True), []
    tree = ast.parse(source)
    for node in _checker_blocks(tree):
        lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "mm1" for alias in node.names):
            raise ValueError(f"line {node.lineno}: write `from mm1.module import name`")
        if not isinstance(node, ast.ImportFrom) or str(node.module).split(".")[0] != "mm1":
            continue
        line, module = lines[node.lineno - 1], str(node.module)
        if not line:  # of a type checker
            continue
        if any(f"{module}.{alias.name}" in sys.modules for alias in node.names):
            raise ValueError(f"line {node.lineno}: import names from a module, and no module from a package")
        lines[node.lineno - 1] = line.replace(f"from {module} import", f"from .{_flat(module)} import", 1)
        needed.append(module)
    return "".join(lines), needed


def _checker_blocks(tree: ast.Module) -> Iterator[Any]:
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield node
