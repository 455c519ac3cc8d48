"""A model's folder at a place of the user's choice."""

from __future__ import annotations

from pathlib import Path

from mm1.errors import UserError
from mm1.files import link, whole_folder
from mm1.model.resolve import resolve_model


def export_model(name: str, to: Path | None = None) -> Path:
    """Return the folder of the model that a name stands for; a step's is made on first use.

    Args:
        name: See `mm1.places.MODEL_HELP`.
        to: A folder to write it to; its files are links where the file system has them. None: the model stays where
            it is.

    Raises:
        UserError: If there is no such model, the folder exists, or it can't be written.
    """
    folder = resolve_model(name)
    if to is None:
        return folder
    if to.exists():
        raise UserError(f"{to} exists already: give --to another folder, or remove this one")
    try:
        with whole_folder(to) as partial:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    target = partial / file.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    link(file.resolve(), target)
    except OSError as error:
        raise UserError(f"{to}: the model could not be written ({error}): free some space") from error
    return to
