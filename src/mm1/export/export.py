"""A model at a place of the user's choice, in the format that others read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mm1.errors import UserError
from mm1.export.hugging_face import write_folder
from mm1.export.llava import write_llava
from mm1.export.onnx import write_onnx
from mm1.files import whole_folder
from mm1.model.resolve import resolve_model
from mm1.nearest import did_you_mean

FORMATS: dict[str, Callable[[Path, Path], str]] = {"llava": write_llava, "onnx": write_onnx}
"""Writes a model's folder to an empty one in a format; returns what its check found."""


def export_model(
    name: str, folder: Path | None, to: str = "hf", *, standalone: bool = False
) -> tuple[Path, str | None]:
    """Write the model that a name stands for to a folder; a step's is made on first use.

    Args:
        name: See `mm1.places.MODEL_HELP`.
        folder: The folder; it must not exist. None: the model stays where it is.
        to: `hf`, or a name in `FORMATS`.
        standalone: `hf` only: write MM1's code too, so that the folder loads where mm1 is not installed.

    Returns:
        The model's folder, and what the format's check found.

    Raises:
        UserError: If there is no such model, the folder exists, or it can't be written.
    """
    formats = ("hf", *FORMATS)
    if to not in formats:
        raise UserError(
            f"--to {to}: no such format: {did_you_mean(to, formats)}; a folder's name stands behind the model's, "
            f"as in `mm1 export {name} {to}`"
        )
    if standalone and to != "hf":
        raise UserError(f"--standalone is for --to hf: {to} needs no code of mm1: leave it out")
    if folder is None and (standalone or to != "hf"):
        raise UserError(f"the folder to write is missing: name it, as in `mm1 export {name} FOLDER --to {to}`")
    if folder is not None and folder.exists():
        raise UserError(f"{folder} exists already: name another folder, or remove this one")
    model = resolve_model(name)
    if folder is None:
        return model, None
    try:
        with whole_folder(folder) as partial:
            if to != "hf":
                return folder, FORMATS[to](model, partial)
            write_folder(model, partial, standalone=standalone)
    except OSError as error:
        raise UserError(f"{folder}: the model could not be written ({error}): free some space") from error
    return folder, None
