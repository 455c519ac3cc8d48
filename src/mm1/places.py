"""What a recipe's `from` names: a folder on this machine, or a model on the Hub."""

from __future__ import annotations

import os
from pathlib import Path

RUNS = "runs"
"""Directory that commands write runs to unless they are told otherwise."""


def is_folder(source: Path | str) -> bool:
    """Whether a source is a folder's name, be the folder there or not, and nothing to ask the Hub for.

    A Hub id is `owner/name`; so is `runs/demo`, which is a folder's name all the same, and so is any path that begins
    with a directory which is there.
    """
    path = Path(source)
    if path.is_dir() or path.is_absolute() or len(path.parts) > 2:
        return True
    return len(path.parts) == 2 and (path.parts[0] == RUNS or Path(path.parts[0]).is_dir())


def data_directory() -> Path:
    """Where corpora are built and looked for: `$MM1_DATA`, else `./data`."""
    return Path(os.environ.get("MM1_DATA", "data"))
