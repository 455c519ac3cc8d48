"""The run directory: everything about one training run, so that it can be explained and repeated.

recipe.yaml        the resolved recipe          plan/          the order of training
environment.json   commit, versions, machine    metrics.jsonl  the curves
tokenizer/         if the run trained one       checkpoints/   to resume from
model/             the result, in Hugging Face format
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from mm1.errors import UserError
from mm1.files import LockedError, hold, write_json, write_text
from mm1.recipe import RunRecipe
from mm1.version import __version__

CHANGEABLE_KEYS = ("name", "evaluate", "train.trackers")
"""Keys that may change in an existing run, since they don't affect the training."""


SCHEDULER_LOGS = "slurm"
"""Folder of a run that `mm1 launch` writes to before the run begins."""
_BEFORE = (SCHEDULER_LOGS, "recipe.yaml.partial")
"""What a run directory without a recipe may contain: the run is about to begin, or was killed at its start."""


LOCK = ".lock"
"""File of a run that is locked by the process that trains it."""


def open_run(directory: Path, recipe: RunRecipe) -> None:
    """Make the run directory, or check that it belongs to the same recipe.

    Args:
        directory: The run's directory.
        recipe: The resolved recipe.

    Raises:
        UserError: If the directory belongs to another recipe (the message names the keys), or isn't a run's.
    """
    file = directory / "recipe.yaml"
    if file.is_file():
        before = flatten(yaml.safe_load(file.read_text()))
        now = flatten(yaml.safe_load(recipe.to_yaml()))
        keys = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        keys = [key for key in keys if not key.startswith(CHANGEABLE_KEYS)]
        if keys:
            shown = ", ".join(f"{k} ({before.get(k)!r} there, {now.get(k)!r} here)" for k in keys[:8])
            more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
            raise UserError(
                f"{directory}: this directory contains a run of another recipe, which differs in {shown}{more}: choose "
                "another directory with --to, or remove this one"
            )
    elif directory.is_dir() and any(entry.name not in _BEFORE for entry in directory.iterdir()):
        raise UserError(f"{directory}: not a run directory and not empty: choose another one with --to")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_text(file, recipe.to_yaml())
    except OSError as error:
        raise UserError(f"{directory}: the run can't be written there ({error.strerror})") from None


@contextmanager
def locked_run(directory: Path) -> Iterator[None]:
    """Lock a run's directory until the block ends, since two trainings would overwrite each other's files.

    Args:
        directory: The run's existing directory.

    Raises:
        UserError: If another process is training there.
    """
    try:
        with hold(directory / LOCK, wait=False):
            yield
    except LockedError:
        raise UserError(
            f"{directory}: another process is training this run: wait until it ends, or choose another directory "
            "with --to"
        ) from None


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings and lists as one mapping with dotted keys."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    flat: dict[str, Any] = {}
    for key, value in items:
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict | list) else {name: value})
    return flat


def environment(**more: Any) -> dict[str, Any]:
    """Return commit, versions and machine, together with other values to record."""
    return {
        "mm1": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        **more,
    }


def write_environment(directory: Path, content: dict[str, Any]) -> None:
    """Write environment.json."""
    write_json(directory / "environment.json", content)


def read_environment(directory: Path) -> dict[str, Any]:
    """Return the content of a run's environment.json."""
    return json.loads((directory / "environment.json").read_text())


def _commit() -> str | None:
    """Return the commit of the source tree, with `+changes` if it has uncommitted changes; None if unknown."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "."], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
