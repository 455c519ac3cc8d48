"""A model over several ranks: what of it is frozen, compiled, recomputed, and sharded by FSDP2."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mm1.errors import EveryRankError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.lora import add_adapters
from mm1.model.parts import blocks_of, parts_of
from mm1.recipe import TrainRecipe
from mm1.train.capabilities import compiles
from mm1.train.parallel import World

# FSDP warns at every step that the model's outputs must not be written to; nothing writes to them.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)


def prepare_model(
    model: MM1ForConditionalGeneration, world: World, recipe: TrainRecipe, autocast: torch.dtype | None
) -> None:
    """Apply adapters, freezing, compilation, activation checkpointing and sharding to a model, in place.

    Args:
        model: The model in float32, on the world's device or without contents.
        world: The ranks; a single rank doesn't shard.
        recipe: Gives `lora`, `freeze`, `compile`, `activation_checkpointing`, `replicas`.
        autocast: The precision in which sharded blocks compute; gradients are reduced in float32.

    Raises:
        UserError: If ranks and replicas don't fit, compilation doesn't work here, or layers take no adapters.
    """
    if recipe.lora is not None:
        add_adapters(model, recipe.lora)
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
