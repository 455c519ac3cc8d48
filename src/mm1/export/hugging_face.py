"""A model's folder at a place of the user's choice, as it is or with the code to load it without mm1."""

from __future__ import annotations

import json
from pathlib import Path

from mm1.auto_map import CODE, CONFIG_AUTO_MAP, PROCESSOR_AUTO_MAP, write_code
from mm1.errors import UserError
from mm1.export.standalone import write_standalone_code
from mm1.files import link, write_json

_AUTO_MAPS = {"config.json": CONFIG_AUTO_MAP, "processor_config.json": PROCESSOR_AUTO_MAP}


def write_folder(model: Path, folder: Path, *, standalone: bool) -> None:
    """Write a model's folder to another; files are links where the file system has them.

    An MM1 that an older version saved gets what the Auto classes look for.

    Args:
        model: Any model's folder.
        folder: An existing, empty folder.
        standalone: Whether the code comes from the folder itself, and not from the installed mm1.

    Raises:
        UserError: If the model is none of mm1's and `standalone` is asked for.
    """
    config = model / "config.json"
    ours = config.is_file() and json.loads(config.read_text("utf-8")).get("model_type") == "mm1"
    if standalone and not ours:
        raise UserError(f"{model} is no model of mm1 (model_type in config.json): leave --standalone out")
    for file in sorted(model.rglob("*")):
        target = folder / file.relative_to(model)
        if not file.is_file() or (ours and file.parent == model and _is_code(file.name)):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if ours and file.name in _AUTO_MAPS and file.parent == model:
            write_json(target, json.loads(file.read_text("utf-8")) | {"auto_map": _AUTO_MAPS[file.name]})
        else:
            link(file.resolve(), target)
    if standalone:
        write_standalone_code(folder)
    elif ours:
        write_code(folder)


def _is_code(name: str) -> bool:
    """Whether a file of a model of mm1 is code that was written into its folder."""
    return name == CODE or (name.startswith("mm1_") and name.endswith(".py"))
