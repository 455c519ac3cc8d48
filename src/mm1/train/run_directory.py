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
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from mm1.errors import UserError
from mm1.files import LockedError, hold, write_json, write_text
from mm1.recipe import RunRecipe
from mm1.train.changes import ENVIRONMENT, check_changes, read_if_there, record_changes
from mm1.version import __version__, source_commit

SCHEDULER_LOGS = "slurm"
"""Folder of a run that `mm1 launch` writes to before the run begins."""
_BEFORE = (SCHEDULER_LOGS, "recipe.yaml.partial")
"""What a run directory without a recipe may contain: the run is about to begin, or was killed at its start."""
_BEGUN = ("plan.packing", "plan", ENVIRONMENT, "checkpoints", "model")
"""What a run has from the making of its plan on. Before that, a start may have failed because of the recipe."""

TRACES = "traces"
"""Folder of a run on several GPUs that NCCL's records of collectives go to when one times out."""
LOCK = ".lock"
"""File of a run that is locked by the process that trains it."""


def open_run(directory: Path, recipe: RunRecipe) -> None:
    """Make the run directory, or check that the run there may take the recipe.

    The recipe.yaml of a run with a plan, or a part of one, stays. Another run takes any recipe.

    Args:
        directory: The run's directory.
        recipe: The resolved recipe.

    Raises:
        UserError: If the directory belongs to another recipe (the message names the keys), or isn't a run's.
    """
    if (directory / "recipe.yaml").is_file():
        if any((directory / name).exists() for name in _BEGUN):
            check_changes(directory, recipe)
        elif (directory / "recipe.yaml").read_text() != recipe.to_yaml():
            with locked_run(directory):
                shutil.rmtree(directory / "tokenizer", ignore_errors=True)  # of the recipe whose start failed
                _write_recipe(directory, recipe)
        return
    if directory.is_dir() and any(entry.name not in _BEFORE for entry in directory.iterdir()):
        raise UserError(f"{directory}: not a run directory and not empty: choose another one with --to")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error) from None
    _write_recipe(directory, recipe)


def change_recipe(directory: Path, recipe: RunRecipe) -> None:
    """Make a recipe the newest of a run that this process has locked, and record what it changes.

    Args:
        directory: The run's directory.
        recipe: The resolved recipe.

    Raises:
        UserError: See `open_run`.
    """
    record_changes(directory, check_changes(directory, recipe))
    _write_recipe(directory, recipe)


def _write_recipe(directory: Path, recipe: RunRecipe) -> None:
    try:
        write_text(directory / "recipe.yaml", recipe.to_yaml())
    except OSError as error:
        raise _unwritable(directory, error) from None


def _unwritable(directory: Path, error: OSError) -> UserError:
    return UserError(f"{directory}: the run can't be written there ({error.strerror})")


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


def environment(**more: Any) -> dict[str, Any]:
    """Return commit, versions and machine, together with other values to record."""
    return {
        "mm1": __version__,
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        **more,
    }


def write_environment(directory: Path, content: dict[str, Any]) -> None:
    """Write environment.json; the recipe's changes that it records stay."""
    recorded = read_if_there(directory).get("changes")
    write_json(directory / ENVIRONMENT, {**content, "changes": recorded} if recorded else content)


def read_environment(directory: Path) -> dict[str, Any]:
    """Return the content of a run's environment.json."""
    return json.loads((directory / ENVIRONMENT).read_text())


def processor_name() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
