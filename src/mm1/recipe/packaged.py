"""Recipes, tasks and studies as YAML: files of the package by name, or a user's by path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from mm1.errors import UserError


@dataclass(frozen=True)
class Shelf:
    """A folder of the package with YAML files of one sort.

    Attributes:
        noun: What one of them is, for messages: `recipe`.
        package: The package, such as `mm1.recipes`.
        folder: The folder in it; empty: the package's own.
        inherits: Whether a file may name another one as its `base`.
    """

    noun: str
    package: str
    folder: str = ""
    inherits: bool = True

    def names(self) -> list[str]:
        """Return the names of what is there, without `.yaml`; in a folder below, `folder/name`."""
        return sorted(self._files())

    def read(self, name_or_path: str) -> dict[str, Any]:
        """Return the keys and values of a packaged file or a user's.

        A file may start from another one (`base: demo`): what it says itself wins.

        Args:
            name_or_path: A packaged name, or a YAML file.

        Raises:
            UserError: If there is none, or it isn't a mapping in YAML.
        """
        try:
            content = yaml.safe_load(self._text(name_or_path))
        except yaml.YAMLError as error:
            raise UserError(f"{name_or_path}: not valid YAML ({' '.join(str(error).split())})") from None
        if not isinstance(content, dict):
            raise UserError(
                f"{name_or_path}: a {self.noun} is a mapping of keys to values, this is a {type(content).__name__}"
            )
        base = content.pop("base", None) if self.inherits else None
        return content if base is None else merge(self.read(str(base)), content)

    def _files(self) -> dict[str, Traversable]:
        root = resources.files(self.package)
        root = root / self.folder if self.folder else root
        found = {}
        for entry in root.iterdir():
            below = entry.iterdir() if entry.is_dir() and self.folder else ()
            for prefix, file in [("", entry), *((f"{entry.name}/", file) for file in below)]:
                if file.name.endswith(".yaml"):
                    found[prefix + file.name.removesuffix(".yaml")] = file
        return found

    def _text(self, name_or_path: str) -> str:
        path = Path(name_or_path)
        try:
            if path.suffix in (".yaml", ".yml") or path.is_file():
                return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such {self.noun} file: check the path, or name one of {', '.join(self.names())}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: the {self.noun} can't be read ({error})") from None
        files = self._files()
        if name_or_path in files:
            return files[name_or_path].read_text(encoding="utf-8")
        near = difflib.get_close_matches(name_or_path, files, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"name a YAML file or one of {', '.join(sorted(files))}"
        )
        raise UserError(f"{self.noun} '{name_or_path}' is unknown: {hint}")


def merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, mappings merged and everything else replaced."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result
