"""Training on many processes with PyTorch: torchrun, FSDP2, gloo or NCCL.

    mm1 pretrain RECIPE                                        one process
    torchrun --nproc_per_node 8 -m mm1 pretrain RECIPE         many processes; the command is otherwise the same

Parameters, gradients and optimizer state are sharded over the ranks, block by block (`fully_shard`). With
`train.replicas` above 1 the ranks form a mesh of that many sharded replicas (hybrid sharding). The sums of every step
(target tokens, requests to stop) go over gloo on the CPU, so that no rank waits for the accelerator.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mm1.devices import choose_device
from mm1.errors import EveryRankError, Stopped, UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.parts import blocks_of, parts_of
from mm1.progress import console
from mm1.ranks import own_rank, world_size
from mm1.recipe import TrainRecipe
from mm1.train.capabilities import compiles
from mm1.train.watch import STEP_TIMEOUT, Watch, step_timeout

# FSDP warns at every step that the model's outputs must not be written to; nothing writes to them.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)

T = TypeVar("T")

_PATIENCE = timedelta(hours=1)
"""Longest time that ranks wait for each other outside of steps, for example while the first one prepares the plan."""

_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
    "NCCL communicator was aborted",
)
"""Words in the errors of gloo and NCCL when a rank has ended."""
_LATE = "Timed out waiting"
"""Words in gloo's error when a rank has not come to a collective."""
_LATER = 10.0
"""Seconds by which a collective times out later than the watch does, which says more."""
_GRACE = {"cpu": 5.0, "cuda": 60.0}
"""Seconds between the stacks of hung ranks and their end; NCCL's collectives then time out and leave their record."""


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes:
        rank: The number of this process.
        size: The number of processes.
        device: The device of this process.
        saving: A separate process group for checkpoints, which are saved during training.
        watch: Ends this rank when another one fails; None: it is alone.
    """

    rank: int
    size: int
    device: torch.device
    saving: dist.ProcessGroup | None = None
    watch: Watch | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process prints, logs and prepares."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over the ranks."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def micro_batches(self, recipe: TrainRecipe) -> tuple[int, int]:
        """Return the sequences per micro-batch of one rank, and its micro-batches per step.

        Raises:
            UserError: If the batch can't be divided so.
        """
        batch = recipe.batch_size
        micro = recipe.micro_batch_size or max(1, batch // self.size)
        if batch % (micro * self.size):
            raise EveryRankError(
                f"train.batch_size {batch} is not a multiple of {self.size} ranks x train.micro_batch_size {micro}: "
                "change one of the three"
            )
        return micro, batch // (micro * self.size)

    def step_done(self, step: int) -> None:
        """Say that a step has been completed; until `wait_long`, ranks wait for each other briefly."""
        if self.watch is not None:
            if not self.watch.ticks:
                self._set_timeouts(timedelta(seconds=self.watch.limit + _LATER))
            self.watch.step_done(step)

    def wait_long(self) -> None:
        """Say that no step will end for some time: ranks wait for each other as long as before the first step."""
        if self.watch is not None and self.watch.ticks:
            self.watch.stop_clock()
            self._set_timeouts(_PATIENCE)

    @contextmanager
    def waiting_long(self) -> Iterator[None]:
        """Have ranks wait for each other long in this block, which is not a step."""
        step = self.watch.step if self.watch is not None and self.watch.ticks else None
        self.wait_long()
        yield
        if step is not None:
            self.step_done(step)

    def _set_timeouts(self, longest: timedelta) -> None:
        """Set how long a collective may take in all groups, those of the mesh too; writing checkpoints takes its time.

        torch has no public function for this; torchtitan uses the same one.
        """
        for group in dist.distributed_c10d._world.pg_map:
            if group is not self.saving:
                dist.distributed_c10d._set_pg_timeout(longest, group)

    @contextmanager
    def errors_shared(self) -> Iterator[None]:
        """Raise a `UserError` of this block on all ranks, whichever rank it occurs on."""
        error = None
        try:
            yield
        except UserError as own:
            if self.size == 1:
                raise
            error = own
        self._raise_shared(error)

    @contextmanager
    def first_rank_first(self) -> Iterator[None]:
        """Run this block on the first rank before the others; a `UserError` is raised on all ranks."""
        if not self.is_first:
            self._raise_shared(None)
        with self.errors_shared():
            yield
        if self.is_first:
            self._raise_shared(None)

    def _raise_shared(self, error: UserError | None) -> None:
        """Wait for all ranks; raise the error of the first rank that has one."""
        for rank, sentence in enumerate(self._gather(None if error is None else str(error))):
            if sentence is not None:
                raise EveryRankError(f"rank {rank}: {sentence}") from error

    def _gather(self, value: Any) -> list[Any]:
        gathered: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(gathered, value)
        return gathered

    def from_first(self, make: Callable[[], T]) -> T:
        """Return on all ranks what a function returns on the first; an error of it is raised on all."""
        if self.size == 1:
            return make()
        made: list[Any] = [None, None]
        if self.is_first:
            try:
                made[0] = make()
            except Exception as error:
                made[1] = error
        dist.broadcast_object_list(made)
        if made[1] is not None:
            raise made[1]
        return made[0]

    def check_equal(self, **values: str) -> None:
        """Check that all ranks have the same values.

        Raises:
            UserError: On every rank, if a value of one rank differs.
        """
        gathered = self._gather(values)
        for name in values:
            different = [rank for rank, theirs in enumerate(gathered) if theirs[name] != gathered[0][name]]
            if different:
                raise EveryRankError(
                    f"rank {different[0]} has another {name} than rank 0: start all ranks with the same recipe, code "
                    "and corpora"
                )


@contextmanager
def join_ranks(device: str, traces: Path | None = None) -> Iterator[World]:
    """Join the processes that torchrun started until the block ends; without torchrun there is one rank.

    Args:
        device: `auto` (a GPU if there is one), or a torch device.
        traces: The folder for NCCL's records of collectives (see `record_collectives`); None: torch's default.

    If this block fails, the other ranks are told why and end; their processes too, since they may wait in a collective.

    Raises:
        UserError: If the device can't be used, or another rank has ended.
    """
    size, rank = world_size(), own_rank()
    where = choose_device(device, "train.device")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if size == 1:
        yield World(0, 1, where)
        return
    limit = step_timeout()
    native = dist.get_default_backend_for_device(where)
    backend = native if where.type == "cpu" else f"cpu:gloo,{where.type}:{native}"
    if where.type == "cuda" and traces is not None:
        record_collectives(traces, os.environ)
    dist.init_process_group(backend, timeout=_PATIENCE)
    console.quiet = rank > 0
    world = World(rank, size, where, dist.new_group(backend="gloo", timeout=_PATIENCE))
    watch = Watch(rank, world._gather, limit, _GRACE.get(where.type, 5.0))
    try:
        yield replace(world, watch=watch)
    except (Stopped, EveryRankError):
        watch.leave()
        raise
    except BaseException as error:
        # The process group stays: to destroy it may take a collective, while the other ranks wait in another one.
        console.quiet = False
        if is_lost(error):
            watch.wait_for_reason()
        explained = _explained(error, limit)
        watch.fail(str(explained or f"{type(error).__name__}: {error}".rstrip(": ")))
        if explained is None:
            raise
        raise UserError(f"rank {rank}: {explained}") from error
    watch.leave()
    dist.destroy_process_group()


def record_collectives(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Have NCCL's groups, made after this, keep their last collectives and write them when one times out.

    Each rank writes `FOLDER/rank_N`; the folder must be there by then. `torchfrtrace` (of torch) reads the files. What
    the user has set stays.

    Args:
        folder: The folder.
        environment: The process's environment variables.
    """
    settings = (
        (("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"), "2000"),
        (("TORCH_NCCL_DUMP_ON_TIMEOUT",), "1"),
        (("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"), f"{folder.absolute()}/rank_"),
    )
    for names, value in settings:  # the second name is that of older versions
        if not any(name in environment for name in names):
            environment[names[0]] = value


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that another rank has ended."""
    return any(words in str(error) for words in _LOST)


def _explained(error: BaseException, limit: float) -> UserError | None:
    """Return the sentence for an error of this rank; None: it is unexpected."""
    if isinstance(error, UserError):
        return error
    if is_lost(error):
        return UserError("another rank has ended: look for the reason in that rank's output")
    if _LATE in str(error):
        return UserError(
            f"another rank did not come within {limit:,.0f} s: look at the ranks' last lines, and at what they read "
            f"(storage, network); {STEP_TIMEOUT} sets another limit"
        )
    return None


def prepare_model(
    model: MM1ForConditionalGeneration, world: World, recipe: TrainRecipe, autocast: torch.dtype | None
) -> None:
    """Apply freezing, compilation, activation checkpointing and sharding to a model, in place.

    Args:
        model: The model in float32, on the world's device or without contents.
        world: The ranks; a single rank doesn't shard.
        recipe: Gives `freeze`, `compile`, `activation_checkpointing`, `replicas`.
        autocast: The precision in which sharded blocks compute; gradients are reduced in float32.

    Raises:
        UserError: If ranks and replicas don't fit, or compilation doesn't work here.
    """
    for name in recipe.freeze:
        parts_of(model)[name].requires_grad_(False)
    if recipe.activation_checkpointing:
        model.gradient_checkpointing_enable()
    tower, decoder = blocks_of(model.model.vision_tower), blocks_of(model.model.language_model)
    if compiles(recipe.compile, world.device):
        for block in (*tower, *decoder):
            block.compile()
    shard_model(model, [*_grouped(tower, max(map(_size, decoder))), *([b] for b in decoder)], world, recipe, autocast)


def _grouped(blocks: list[nn.Module], size: int) -> list[list[nn.Module]]:
    """Divide a tower's blocks into the fewest equal groups that are no larger than one block of the decoder.

    A tower's blocks are small: gathered one by one, they cost more messages than the decoder's, for a fraction of its
    bytes.

    Args:
        blocks: The tower's, in order.
        size: Parameters of the decoder's largest block.
    """
    groups = min(len(blocks), -(-sum(map(_size, blocks)) // size))
    borders = [number * len(blocks) // groups for number in range(groups + 1)]
    return [blocks[first:last] for first, last in pairwise(borders)]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shard_of(world: World, recipe: TrainRecipe) -> tuple[int, int]:
    """Return which part of every parameter this rank holds, and how many parts there are.

    Raises:
        UserError: If the number of ranks isn't a multiple of the replicas.
    """
    if world.size % recipe.replicas:
        raise EveryRankError(
            f"train.replicas {recipe.replicas} does not divide the {world.size} ranks: set it to a divisor of "
            f"{world.size}"
        )
    parts = world.size // recipe.replicas
    return world.rank % parts, parts


def shard_model(
    model: nn.Module,
    units: Sequence[list[nn.Module]],
    world: World,
    recipe: TrainRecipe,
    autocast: torch.dtype | None,
    float32_parts: Sequence[nn.Module] = (),
) -> None:
    """Shard a model over the ranks, in place; a single rank leaves it unchanged.

    Args:
        model: The model in float32, on the world's device or without contents.
        units: Modules that are gathered and freed together.
        world: The ranks.
        recipe: Gives `replicas`.
        autocast: The precision in which sharded blocks compute; gradients are reduced in float32.
        float32_parts: Modules that compute in float32 instead.

    Raises:
        UserError: If the number of ranks isn't a multiple of the replicas.
    """
    if world.size == 1:
        return
    parts = shard_of(world, recipe)[1]
    mesh = (
        init_device_mesh(
            world.device.type,
            (recipe.replicas, parts),
            mesh_dim_names=("replicate", "shard"),
        )
        if recipe.replicas > 1
        else init_device_mesh(world.device.type, (world.size,))
    )
    policy = MixedPrecisionPolicy(param_dtype=autocast, reduce_dtype=torch.float32)
    for part in float32_parts:
        fully_shard(part, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))
    for unit in units:
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    # All other parameters (embeddings, which may be tied to the head, norms, the connector) form the root's group,
    # which stays gathered during a forward pass.
    fully_shard(model, mesh=mesh, mp_policy=policy)


def reduce_replicas(model: nn.Module, *, now: bool) -> None:
    """Say whether the coming backward pass reduces gradients over the replicas; once a step is enough.

    Args:
        model: Sharded or not.
        now: Whether it is a step's last micro-batch. Before, every replica adds up its own gradients.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(now)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the full tensor, gathered if it is sharded; all ranks must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
