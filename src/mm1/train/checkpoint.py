"""Checkpoints: model, optimizer and place in the plan, as safetensors; complete or not there.

checkpoints/step-000250/model.safetensors
checkpoints/step-000250/optimizer.safetensors
checkpoints/step-000250/state.json       step, counters, random state
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from mm1.errors import UserError

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def save_checkpoint(
    directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], keep: int
) -> None:
    """Write a checkpoint beside its place, rename it, and remove the oldest beyond `keep`.

    Args:
        directory: Holds all checkpoints of the run.
        model: Its parameters and buffers are saved.
        optimizer: Its state is saved by parameter name.
        state: JSON values; must have `step`, the number of steps done.
        keep: How many checkpoints stay.

    Raises:
        UserError: If the disk is full or not writable; earlier checkpoints are untouched.
    """
    final = directory / f"step-{state['step']:06d}"
    partial = final.with_suffix(".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(_without_aliases(model.state_dict()), partial / "model.safetensors")
        flat: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=_FLAT)
        tensors = {name: value.contiguous() for name, value in flat.items() if isinstance(value, torch.Tensor)}
        save_file(tensors, partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps(state))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"{final}: the checkpoint could not be saved ({error}): the last good one stays; free some space and "
            "run the same command to go on"
        ) from error
    for old in checkpoints(directory)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def checkpoints(directory: Path) -> list[Path]:
    """Return the complete checkpoints, the oldest first."""
    return sorted(path for path in directory.glob("step-*") if path.suffix != ".partial")


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load model and optimizer in place and return the state saved with them."""
    missing, unexpected = model.load_state_dict(load_file(path / "model.safetensors"), strict=False)
    absent = set(missing) - set(_aliases(model.state_dict()))
    if absent or unexpected:
        raise UserError(f"{path}: the checkpoint is of another model ({sorted(absent or unexpected)[0]})")
    # The names and the groups' settings come from the optimizer as built; the tensors from the file.
    flat: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    flat.update(load_file(path / "optimizer.safetensors"))
    set_optimizer_state_dict(model, optimizer, flat, options=_FLAT)
    return json.loads((path / "state.json").read_text())


def _aliases(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Return the names that share memory with an earlier name (tied embeddings)."""
    first: dict[int, str] = {}
    aliases = {}
    for name, tensor in tensors.items():
        pointer = tensor.data_ptr()
        if pointer in first and tensor.numel():
            aliases[name] = first[pointer]
        else:
            first[pointer] = name
    return aliases


def _without_aliases(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    aliases = _aliases(tensors)
    return {name: tensor.contiguous() for name, tensor in tensors.items() if name not in aliases}
