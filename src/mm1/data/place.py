"""Where a corpus may be written: its folder is replaced as a whole, so nothing else may be lost with it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mm1.errors import UserError
from mm1.files import link
from mm1.remote.opening import absolute

INFO_FILE = "corpus.json"
"""File that makes a folder a corpus."""
_MADE_ANEW = {INFO_FILE, "index"}  # beside the splits


def read_info(directory: Path) -> dict[str, Any] | None:
    """Return the content of a directory's `corpus.json`; None if it has none that can be read."""
    try:
        info = json.loads((directory / INFO_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) and isinstance(info.get("splits"), dict) else None


def check_place(directory: Path, sources: Iterable[str] = ()) -> None:
    """Check that a folder may become a corpus, or be replaced by one.

    Args:
        directory: Where the corpus is to be.
        sources: Files that it is made from.

    Raises:
        UserError: If the path has no name, is a file, or is a folder that has files and is no corpus; or a source lies
            in it.
    """
    if directory.name in ("", ".."):
        raise UserError(f"{directory}: this is no folder's name: name the folder of the corpus, as in --to data/mine")
    inside = os.path.join(directory.absolute(), "")
    for source in sources:
        if absolute(source).startswith(inside):
            raise UserError(
                f"{source}: it lies in the folder of the corpus, which a build replaces: choose another --to"
            )
    if directory.is_dir():
        there = sorted(path.name for path in directory.iterdir())
        if there and INFO_FILE not in there:
            raise UserError(
                f"{directory}: this folder has other files and is no corpus ({there[0]}, for example; no {INFO_FILE}), "
                f"and a corpus would replace it: choose another place, such as --to {directory / 'corpus'}"
            )
    elif os.path.lexists(directory):
        raise UserError(f"{directory}: this is no folder, and a corpus is one: choose another place with --to")


def check_split(name: str) -> None:
    """Check that a split may have a name: it is a folder of the corpus, and recipes write `corpus/split@mask`.

    Raises:
        UserError: If it may not.
    """
    if not name.strip() or name.startswith(".") or name in _MADE_ANEW or set(name) & set("/\\@,"):
        raise UserError(
            f"--split '{name}': no split can have this name: take letters and digits, such as train or heldout (no / "
            f"\\ @ or comma, no dot first, not {' or '.join(sorted(_MADE_ANEW))})"
        )


def check_origin(directory: Path, mark: str, made: str) -> None:
    """Check that a corpus that is replaced as a whole, with all splits, was made in the same way.

    Args:
        directory: Where the corpus is to be.
        mark: Key of the options of corpora that were.
        made: How those are made, for the message.

    Raises:
        UserError: If there is another corpus.
    """
    info = read_info(directory)
    if info is not None and mark not in (info.get("options") or {}):
        raise UserError(
            f"{directory}: a corpus is there that was not {made}, and all of it would be replaced: choose another "
            "place with --to, or remove it"
        )


def keep_others(old: Path, new: Path, splits: Iterable[str]) -> None:
    """Put into a corpus's new folder what its old one holds and no corpus has: a user's notes, say.

    Args:
        old: The corpus as it is; it need not exist.
        new: What replaces it.
        splits: The splits of the old one.
    """
    if not old.is_dir():
        return
    own = {*_MADE_ANEW, *splits}
    for path in old.iterdir():
        target = new / path.name
        if path.name in own or os.path.lexists(target):
            continue
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
        elif path.is_dir():
            shutil.copytree(path, target, symlinks=True, copy_function=link)
        else:
            link(path, target)
