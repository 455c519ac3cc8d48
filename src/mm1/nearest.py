"""The nearest known names for one that is unknown: keys, names of all sorts, files and folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, or all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"name one of {', '.join(known)}" if known else "there is none"


def nearest_path(path: str | Path) -> str:
    """Return `; did you mean runs/demo?` for a path that is missing, of which a part is misspelt; else nothing."""
    wanted = Path(path).expanduser()
    parts, place = wanted.parts, Path(wanted.anchor)
    for number, part in enumerate(parts[1 if wanted.anchor else 0 :]):
        if not (place / part).exists():
            rest = parts[(1 if wanted.anchor else 0) + number + 1 :]
            for name in difflib.get_close_matches(part, _names(place), n=3, cutoff=0.6):
                if (found := place.joinpath(name, *rest)).exists():
                    return f"; did you mean {found}?"
            return ""
        place = place / part
    return ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
