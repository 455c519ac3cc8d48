"""Which files of a model's folder are the model, and how they are put into a folder to be published."""

from __future__ import annotations

import fnmatch
import json
import shutil
from pathlib import Path
from typing import Any

from mm1.errors import UserError
from mm1.files import link
from mm1.publish.private import public

CARD = "README.md"
WEIGHTS = ("*.safetensors",)
SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model", "*.py", CARD)
"""Weights in safetensors alone: pickle runs whatever code its author wrote."""

_PLACES = ("_name_or_path", "name_or_path")
"""Keys under which libraries note where a model was loaded from."""


def model_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files of a model, and the names of those that are left out.

    Args:
        folder: The model's folder.
    """
    files, others = [], []
    for entry in sorted(folder.iterdir()):
        if entry.is_file() and any(fnmatch.fnmatch(entry.name, pattern) for pattern in (*WEIGHTS, *SETTINGS)):
            files.append(entry)
        elif not entry.name.startswith("."):
            others.append(entry.name + ("/" if entry.is_dir() else ""))
    return files, others


def stage(files: list[Path], folder: Path, *, linked: bool) -> None:
    """Put a model's files into a folder; noted places of this machine become names.

    Args:
        files: See `model_files`.
        folder: An existing, empty folder.
        linked: Whether weights become symbolic links, for a folder that is read once and removed.

    Raises:
        UserError: If a file of settings is damaged.
    """
    for file in files:
        target = folder / file.name
        if file.suffix == ".safetensors":
            if linked:
                target.symlink_to(file.resolve())
            else:
                link(file.resolve(), target)
        elif file.suffix == ".json" and any(place in (text := _text(file)) for place in _PLACES):
            target.write_text(json.dumps(_without_places(json.loads(text)), indent=2, ensure_ascii=False) + "\n")
        else:
            shutil.copyfile(file, target)


def _text(file: Path) -> str:
    text = file.read_text("utf-8")
    try:
        json.loads(text)
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error}): export the model again") from None
    return text


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: public(v) if k in _PLACES else _without_places(v) for k, v in value.items()}
    return [_without_places(item) for item in value] if isinstance(value, list) else value
