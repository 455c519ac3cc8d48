"""Recipes, tasks and studies as YAML files: packaged ones by name, a user's by path."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from mm1.errors import UserError
from mm1.nearest import nearest_path
from mm1.recipe.yaml_text import read_yaml


@dataclass(frozen=True)
class Shelf:
    """A packaged folder with YAML files of one type.

    Attributes:
        noun: What messages call such a file: `recipe`.
        package: The package, such as `mm1.recipes`.
        folder: The folder inside the package; empty: the package itself.
        inherits: Whether a file may extend another one, its `base`.
    """

    noun: str
    package: str
    folder: str = ""
    inherits: bool = True

    def names(self) -> list[str]:
        """Return the files' names without `.yaml`; a file in a subfolder is `subfolder/name`."""
        return sorted(self._files())

    def read(self, name_or_path: str) -> dict[str, Any]:
        """Return the keys and values of a packaged file or a user's file.

        A file may extend another one (`base: demo`) and override its keys. A path is told from here, else from the
        folder of the file that names it.

        Args:
            name_or_path: A packaged name, or a YAML file's path.

        Raises:
            UserError: If the file doesn't exist, isn't a YAML mapping, has a key twice, or extends itself.
        """
        return self._read(name_or_path, ())

    def _read(self, name_or_path: str, above: tuple[str, ...]) -> dict[str, Any]:
        """Return the keys and values of a file that others, `above`, extend."""
        own = os.path.realpath(name_or_path) if self._is_file(name_or_path) else name_or_path
        if own in above:
            raise UserError(f"{name_or_path}: this {self.noun} extends itself by its key 'base': name another base")
        try:
            content = read_yaml(self._text(name_or_path))
        except yaml.YAMLError as error:
            raise UserError(f"{name_or_path}: not valid YAML ({' '.join(str(error).split())})") from None
        if not isinstance(content, dict):
            raise UserError(
                f"{name_or_path}: a {self.noun} must be a mapping of keys to values, and this file holds a "
                f"{type(content).__name__}: write it as key: value"
            )
        base = content.pop("base", None) if self.inherits else None
        if base is None:
            return content
        beside = Path(name_or_path).parent / str(base)
        if self._is_file(name_or_path) and not Path(str(base)).is_file() and beside.is_file():
            base = beside
        return merge(self._read(str(base), (*above, own)), content)

    def title(self, name: str) -> str:
        """Return what a packaged file says of itself: the first sentence of the comment that it begins with."""
        comment: list[str] = []
        for line in self._text(name).splitlines():
            if not line.removeprefix("#").strip() or not line.startswith("#"):
                break
            comment.append(line.removeprefix("#").strip())
        return re.split(r"\.\s(?=[A-Z`])", " ".join(comment))[0].rstrip(".:")

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

    def _is_file(self, name_or_path: str) -> bool:
        """Whether a name is a path, and none of a packaged file."""
        path = Path(name_or_path)
        return path.suffix in (".yaml", ".yml") or path.is_file()

    def _text(self, name_or_path: str) -> str:
        path = Path(name_or_path)
        try:
            if self._is_file(name_or_path):
                return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such {self.noun} file: check the path, or name one of {', '.join(self.names())}"
                f"{nearest_path(path)}"
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
    """Return `base` updated with `changes`; nested mappings are merged, other values replaced."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result
