"""Fetches a model that was pushed, and checks that it is whole."""

from __future__ import annotations

from pathlib import Path

from mm1.errors import UserError
from mm1.files import whole_folder
from mm1.model.resolve import resolve_model
from mm1.places import parse_model_name
from mm1.progress import console
from mm1.publish.contents import model_files, stage
from mm1.publish.hub import download
from mm1.publish.whole import check_whole


def pull(model: str, to: Path | None = None, revision: str | None = None) -> Path:
    """Return the folder of a model that was fetched, after which every command takes it.

    Args:
        model: A Hub id (`owner/name`, `owner/name@revision`), or the name of any other model.
        to: A folder to put it into; None: it stays in the Hub's cache, or where it is.
        revision: Branch, tag or commit on the Hub.

    Raises:
        UserError: If there is no such model, it isn't a whole MM1 model, or the folder exists.
    """
    name = parse_model_name(model)
    if to is not None and to.exists():
        raise UserError(f"{to} exists already: give --to another folder, or remove this one")
    if revision is not None and (name.kind != "hub" or name.version):
        kind = "has a revision already" if name.version else "is not on the Hub"
        raise UserError(f"--revision {revision}: {model} {kind}: leave one of the two out")
    on_hub = name.kind == "hub"
    folder = download(name.place, revision or name.version) if on_hub else resolve_model(model)
    check_whole(folder, model)
    if to is None:
        return folder
    files, others = model_files(folder)
    if others:
        console.print(f"left out, since no part of the model: {', '.join(others)}")
    try:
        with whole_folder(to) as partial:
            stage(files, partial, linked=False)
    except OSError as error:
        raise UserError(f"{to}: the model could not be written ({error}): free some space") from error
    return to
