"""Training on many processes by PyTorch's own means: torchrun, FSDP2, gloo or NCCL.

    mm1 pretrain RECIPE                                        one process
    torchrun --nproc_per_node 8 -m mm1 pretrain RECIPE         many; the command is otherwise the same

Parameters, gradients and optimizer state are sharded over the ranks, each block of both towers on its own
(`fully_shard`). With `train.replicas` above 1 the ranks form a mesh of that many replicas, each sharded
(hybrid sharding). The sums that every step needs (target tokens, a request to stop) go over gloo on the CPU,
so that the accelerator is not waited for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mm1.devices import choose_device
from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.parts import blocks_of, parts_of
from mm1.progress import console
from mm1.ranks import own_rank, world_size
from mm1.recipe import TrainRecipe
from mm1.train.capabilities import compiles

# FSDP warns at every step that writing into what the model returns would go wrong; nothing does.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)

_PATIENCE = timedelta(hours=1)
"""How long ranks wait for one another; the first rank prepares corpora and plan meanwhile."""

_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What gloo says when a rank is gone."""


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes:
        rank: This process's number.
        size: How many there are.
        device: Where this one computes.
        saving: Process group of its own for checkpoints, which are saved while training goes on.
    """

    rank: int
    size: int
    device: torch.device
    saving: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints, logs and prepares."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Add numbers up over the ranks."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def micro_batches(self, recipe: TrainRecipe) -> tuple[int, int]:
        """Return how many sequences a rank takes at a time, and how many times a step.

        Raises:
            UserError: If the batch can't be shared so.
        """
        batch = recipe.batch_size
        micro = recipe.micro_batch_size or max(1, batch // self.size)
        if batch % (micro * self.size):
            raise UserError(
                f"train.batch_size {batch} is not a multiple of {self.size} ranks x train.micro_batch_size {micro}"
            )
        return micro, batch // (micro * self.size)

    @contextmanager
    def errors_shared(self) -> Iterator[None]:
        """Let a user's mistake that one rank meets in this block end all of them, with its sentence."""
        error = None
        try:
            yield
        except UserError as met:
            if self.size == 1:
                raise
            error = met
        self._share(error)

    @contextmanager
    def first_rank_first(self) -> Iterator[None]:
        """Let the first rank go through this block before the others do; a mistake ends all of them."""
        if not self.is_first:
            self._share(None)
        with self.errors_shared():
            yield
        if self.is_first:
            self._share(None)

    def _share(self, error: UserError | None) -> None:
        """Wait for all ranks; raise the first error that one of them has."""
        for rank, sentence in enumerate(self._gather(None if error is None else str(error))):
            if sentence is not None:
                raise UserError(f"rank {rank}: {sentence}") from error

    def _gather(self, value: Any) -> list[Any]:
        everybody: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(everybody, value)
        return everybody

    def check_equal(self, **values: str) -> None:
        """Check that all ranks have the same.

        Raises:
            UserError: On every rank, if one of them differs.
        """
        everybody = self._gather(values)
        for name in values:
            others = [rank for rank, theirs in enumerate(everybody) if theirs[name] != everybody[0][name]]
            if others:
                raise UserError(
                    f"rank {others[0]} has another {name} than rank 0: start all ranks with the same recipe, code "
                    "and corpora"
                )


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, or be alone; leave at the end.

    Args:
        device: `auto` (a GPU if there is one), or a torch device.

    Raises:
        UserError: If the device can't be used, or another rank is lost.
    """
    size, rank = world_size(), own_rank()
    where = choose_device(device, "train.device")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if size == 1:
        yield World(0, 1, where)
        return
    native = dist.get_default_backend_for_device(where)
    backend = native if where.type == "cpu" else f"cpu:gloo,{where.type}:{native}"
    dist.init_process_group(backend, timeout=_PATIENCE)
    console.quiet = rank > 0
    try:
        yield World(rank, size, where, dist.new_group(backend="gloo"))
    except RuntimeError as error:
        if not any(words in str(error) for words in _LOST):
            raise
        console.quiet = False
        raise UserError(
            f"rank {rank}: another rank has ended: what that one says, if anything, is the reason"
        ) from None
    finally:
        dist.destroy_process_group()


def prepare_model(
    model: MM1ForConditionalGeneration, world: World, recipe: TrainRecipe, autocast: torch.dtype | None
) -> None:
    """Freeze, compile, recompute and shard as the recipe says, in place.

    Args:
        model: In float32, on the world's device.
        world: With one process nothing is sharded.
        recipe: `freeze`, `compile`, `activation_checkpointing`, `replicas`.
        autocast: The precision that sharded blocks compute in; gradients are reduced in float32.

    Raises:
        UserError: If ranks and replicas don't fit, or nothing can be compiled here.
    """
    for name in recipe.freeze:
        parts_of(model)[name].requires_grad_(False)
    if recipe.activation_checkpointing:
        model.gradient_checkpointing_enable()
    blocks = [*blocks_of(model.model.vision_tower), *blocks_of(model.model.language_model)]
    if compiles(recipe.compile, world.device):
        for block in blocks:
            block.compile()
    shard_model(model, blocks, world, recipe, autocast)


def shard_model(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    world: World,
    recipe: TrainRecipe,
    autocast: torch.dtype | None,
    whole_precision: Sequence[nn.Module] = (),
) -> None:
    """Shard a model over the ranks, in place; one process keeps it as it is.

    Args:
        model: In float32, on the world's device.
        blocks: Its parts that are each gathered and freed on their own.
        world: The ranks.
        recipe: `replicas`, `optimizer`.
        autocast: The precision that sharded blocks compute in; gradients are reduced in float32.
        whole_precision: Parts that compute in float32 all the same.

    Raises:
        UserError: If ranks and replicas, or replicas and optimizer, don't fit.
    """
    if world.size == 1:
        return
    if world.size % recipe.replicas:
        raise UserError(f"train.replicas {recipe.replicas} does not divide the {world.size} ranks")
    mesh = (
        init_device_mesh(
            world.device.type,
            (recipe.replicas, world.size // recipe.replicas),
            mesh_dim_names=("replicate", "shard"),
        )
        if recipe.replicas > 1
        else init_device_mesh(world.device.type, (world.size,))
    )
    policy = MixedPrecisionPolicy(param_dtype=autocast, reduce_dtype=torch.float32)
    for part in whole_precision:
        fully_shard(part, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # Everything else (embeddings, which may be tied to the head, norms, the connector) is the root's group, whole
    # for the length of a forward pass.
    fully_shard(model, mesh=mesh, mp_policy=policy)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in full, gathered if it is sharded (all ranks must ask)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
