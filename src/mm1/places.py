"""Where data and runs are, and what a model's name stands for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mm1.errors import UserError

RUNS = "runs"
"""Directory that commands write runs to by default."""

HUB = "hub:"
"""Prefix of a Hub id; needed only where a folder has the same name."""

LEAST_CACHE = 10**9
"""Bytes of the smallest cache; a smaller one would lose what it is filled with at once."""

_ADDRESS = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)

PACKAGED = ("smollm2", "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
"""Models that Python packages ship, by name."""

MODEL_HELP = (
    "A run's directory (runs/demo), a step of a run (runs/demo@750), a model's folder, the address of a run or of such "
    "a folder (s3://bucket/demo), a Hub id (owner/name, owner/name@revision), or one that a Python package ships: "
    "smollm2, efficientnet-lite0, -lite1 or -lite2."
)
"""What every option and key that names a model accepts."""


def data_directory() -> Path:
    """Return the directory that holds the corpora: `$MM1_DATA`, else `./data`."""
    return Path(os.environ.get("MM1_DATA", "data"))


def is_address(text: Path | str) -> bool:
    """Whether a text is the address of something in a store, such as `s3://bucket/shards/000.tar`."""
    return _ADDRESS.match(str(text)) is not None


def cache_directory() -> Path:
    """Return the directory of what was read from addresses: `$MM1_CACHE`, else `mm1` in the user's cache folder."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MM1_CACHE") or Path(caches) / "mm1")


def cache_size() -> int:
    """Return how many bytes that directory may hold: `$MM1_CACHE_SIZE`, else 50 GB; 0: nothing is kept.

    Raises:
        UserError: If the variable is no size, or below 1 GB and not 0.
    """
    text = os.environ.get("MM1_CACHE_SIZE") or "50GB"
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text.strip().upper())
    size = int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " ")) if match else -1
    if size != 0 and size < LEAST_CACHE:
        raise UserError(f"MM1_CACHE_SIZE is '{text}': give a size of at least 1GB, such as 50GB or 2TB, or 0 for none")
    return size


@dataclass(frozen=True)
class ModelName:
    """What the name of a model stands for.

    Attributes:
        text: The name as the user gave it.
        kind: `folder` (of a model or a run), `step` (of a run), `address` (of either in a store), `hub` or `packaged`.
        place: The folder, the address, the Hub id, or the package's name for the model.
        version: The step's number, or the revision on the Hub (None: the latest).
    """

    text: str
    kind: Literal["folder", "step", "address", "hub", "packaged"]
    place: str
    version: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, whether or not it exists; None for an address, a Hub id and a packaged model."""
        return Path(self.place) if self.kind in ("folder", "step") else None

    def scores(self) -> Path:
        """Return the folder that the model's scores are written to by default."""
        if self.kind == "address":
            return Path("scores") / self.place.partition("://")[2].strip("/").replace("/", "--")
        if self.folder is None:
            return Path("scores") / "@".join([self.place.replace("/", "--"), *([self.version] if self.version else [])])
        if self.kind == "step":
            return self.folder / "scores" / f"step-{int(str(self.version)):06d}"
        return self.folder / "scores"


def parse_model_name(text: Path | str) -> ModelName:
    """Return what a name stands for, without reading a file or asking the Hub.

    An existing folder comes first. `owner/name` is a Hub id, unless `owner` is `runs` or an existing folder.

    Args:
        text: See `MODEL_HELP`.

    Raises:
        UserError: If the text after a run's `@` isn't the number of a step.
    """
    text = str(text)
    if is_address(text):
        return ModelName(text, "address", text)
    if text.startswith(HUB):
        return _hub(text, text.removeprefix(HUB))
    if Path(text).is_dir():
        return ModelName(text, "folder", text)
    if text in PACKAGED:
        return ModelName(text, "packaged", text)
    place, at, version = text.rpartition("@")
    if at and _is_folder(place):
        step = re.fullmatch(r"(?:step-)?0*(\d+)", version)
        if step is None:
            raise UserError(f"{text}: '{version}' isn't a step: write the number of a checkpoint, as in {place}@750")
        return ModelName(text, "step", place, step[1])
    if _is_folder(text):
        return ModelName(text, "folder", text)
    return _hub(text, text)


def _hub(text: str, name: str) -> ModelName:
    place, _, revision = name.partition("@")
    return ModelName(text, "hub", place, revision or None)


def _is_folder(text: str) -> bool:
    """Return whether a name means a folder, which need not exist, and not a Hub id."""
    path = Path(text)
    if path.is_dir() or path.is_absolute() or len(path.parts) > 2 or text.startswith((".", "~")):
        return True
    return len(path.parts) == 2 and (path.parts[0] == RUNS or Path(path.parts[0]).is_dir())
