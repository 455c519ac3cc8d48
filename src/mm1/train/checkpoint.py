"""Checkpoints by PyTorch's Distributed Checkpoint, as safetensors, saved in the background; complete or absent.

    checkpoints/step-000250/shard-*.safetensors   model and optimizer, one shard per rank
    checkpoints/step-000250/state.json            step, position in the plan, counters

Saving first copies the tensors, then writes them in the background under a temporary name, and renames the folder when
all ranks have finished. A checkpoint can be loaded on another number of ranks. It contains no pickle.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections import defaultdict
from collections.abc import Container
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint import DefaultSavePlanner, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import SavePlan, WriteItemType
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
)

from mm1.errors import UserError
from mm1.model.checkpoint import checkpoints
from mm1.model.join import MODEL_PREFIX, CheckpointReader
from mm1.train.parallel import World, is_lost

# Without a process group, torch warns from a background thread that it assumes `no_dist`, which is set anyway.
warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
_OPTIMIZER = "optimizer."
_STATE = _OPTIMIZER + "state."


class _SavePlanner(DefaultSavePlanner):
    """Has the first rank write what every rank has whole: scalars and buffers.

    The library spreads these over all files, and each rank would then open all files when it loads.
    """

    def create_local_plan(self) -> SavePlan:
        plan = super().create_local_plan()
        if self.is_coordinator:
            return plan
        return replace(plan, items=[item for item in plan.items if item.type != WriteItemType.TENSOR])


class Checkpointer:
    """Saves and loads the checkpoints of a run.

    Args:
        directory: The folder of all checkpoints.
        model: The model, whose parameters and buffers are saved.
        optimizer: The optimizer, whose state is saved by parameter name.
        world: The ranks that save together.
        keep: Number of latest checkpoints to keep.
        keep_every: Checkpoints at multiples of this many steps are kept too; None: only the latest ones.
        only: Names of the model's tensors that are saved; None: all. The others don't change in training.
    """

    def __init__(
        self,
        directory: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        keep: int,
        keep_every: int | None = None,
        only: Container[str] | None = None,
    ) -> None:
        self.only = only
        self.directory, self.model, self.optimizer, self.world = directory, model, optimizer, world
        self.keep, self.keep_every = keep, keep_every
        self._pending: tuple[Future[Any], Path, dict[str, Any]] | None = None

    def save(self, state: dict[str, Any], *, wait: bool = False) -> None:
        """Start to save a checkpoint, after the previous save has finished.

        Args:
            state: JSON values; must have `step`, the number of completed steps.
            wait: Whether to return only when the checkpoint is complete.

        Raises:
            UserError: If this or the previous save failed (disk full, for example); earlier checkpoints are untouched.
        """
        partial = self.directory / f"step-{state['step']:06d}.partial"
        with self.world.waiting_long(), self.world.errors_shared():
            self.finish()
            if self.world.is_first:
                self._make_folder(partial)
        future = dcp.async_save(
            self._tensors(),
            storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True),
            planner=_SavePlanner(),
            process_group=self.world.saving,
            no_dist=self.world.size == 1,
        )
        assert isinstance(future, Future)
        self._pending = future, partial, dict(state)
        if wait:
            with self.world.waiting_long():
                self.finish()

    def poll(self) -> None:
        """Rename the checkpoint that is being saved if it is complete; costs nothing if it isn't."""
        if self._pending is not None and self._pending[0].done():
            self.finish()

    def finish(self) -> None:
        """Wait for the save in progress and rename its checkpoint.

        Raises:
            UserError: If the save failed.
        """
        if self._pending is None:
            return
        (future, partial, state), self._pending = self._pending, None
        try:
            future.result()  # on the first rank, this means that all ranks have finished
            if self.world.is_first:
                (partial / "state.json").write_text(json.dumps(state))
                final = partial.with_suffix("")
                shutil.rmtree(final, ignore_errors=True)
                partial.rename(final)
                self._remove_old()
        except (OSError, SafetensorError, CheckpointException, RuntimeError) as error:
            if is_lost(error):
                raise RuntimeError(str(error)) from None  # the ranks' business, not the disk's
            raise self._failed(partial, error) from error

    def settle(self, seconds: float) -> None:
        """Let a save in progress end if it can within some seconds; an error of it is not raised."""
        if self._pending is not None:
            wait([self._pending[0]], seconds)
            with suppress(UserError, RuntimeError):
                self.poll()

    def load_latest(self) -> dict[str, Any] | None:
        """Load the latest complete checkpoint into model and optimizer, in place.

        Returns:
            The state saved with it; None if there is no checkpoint.

        Raises:
            UserError: If the checkpoint belongs to another model or is damaged.
        """
        if self.world.is_first:
            for leftover in self.directory.glob("*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
        saved = checkpoints(self.directory)
        self.world.check_equal(checkpoint=saved[-1].name if saved else "none")
        if not saved:
            return None
        latest = saved[-1]
        try:
            reader = CheckpointReader(latest, self.world.from_first(CheckpointReader(latest).read_metadata))
            dcp.load(
                self._tensors_in(reader.read_metadata().state_dict_metadata),
                storage_reader=reader,
                process_group=self.world.saving,
                no_dist=self.world.size == 1,
            )
            state: dict[str, Any] = json.loads((latest / "state.json").read_text())
        except (CheckpointException, RuntimeError, KeyError, AssertionError, SafetensorError, ValueError) as error:
            raise UserError(
                f"{latest}: the checkpoint doesn't fit this model or is damaged ({reason(error)}): remove this folder "
                "to resume from the checkpoint before it"
            ) from error
        return state

    def _make_folder(self, partial: Path) -> None:
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        except OSError as error:
            raise self._failed(partial, error) from error

    def _tensors(self) -> dict[str, Any]:
        """Return the tensors to save: parameters, buffers and the optimizer's. Tied tensors appear once."""
        # Tied parameters are the same object. Addresses don't tell: a rank's share of a small tensor may be empty.
        first_names: dict[int, str] = {}
        tensors = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if self.only is not None and name not in self.only:
                continue
            if first_names.setdefault(id(tensor), name) == name:
                tensors[MODEL_PREFIX + name] = tensor.detach()
        flat: dict[str, Any] = get_optimizer_state_dict(self.model, self.optimizer, options=_FLAT)
        return tensors | {_OPTIMIZER + k: v for k, v in flat.items() if isinstance(v, torch.Tensor)}

    def _tensors_in(self, saved: Container[str]) -> dict[str, Any]:
        """Return the tensors to load into, without the optimizer's state of parameters that never had a gradient.

        The library creates missing state for every parameter. A parameter that takes no part, such as the last norm
        of a CLIP tower whose patches skip it, has no state in the checkpoint, and must have none after loading.

        Args:
            saved: The names in the checkpoint.
        """
        tensors, states = self._tensors(), defaultdict(list)
        for key in tensors:
            if key.startswith(_STATE):
                states[key.removeprefix(_STATE).rpartition(".")[0]].append(key)
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        for name, keys in states.items():
            if not any(key in saved for key in keys):
                del self.optimizer.state[parameters[name]]
                for key in keys:
                    del tensors[key]
        return tensors

    def _remove_old(self) -> None:
        for old in checkpoints(self.directory)[: -self.keep]:
            step = int(old.name.removeprefix("step-"))
            if self.keep_every is None or step % self.keep_every:
                shutil.rmtree(old.rename(old.with_suffix(".partial")), ignore_errors=True)

    def _failed(self, partial: Path, error: BaseException) -> UserError:
        shutil.rmtree(partial, ignore_errors=True)
        return UserError(
            f"{partial.with_suffix('')}: the checkpoint could not be saved ({reason(error)}); earlier ones are "
            "intact: free some space and run the same command to resume"
        )


def reason(error: BaseException) -> str:
    """Return the last line of an error's message, which says what went wrong; the lines before it are a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
