"""A model over several ranks: what of it is frozen, compiled, recomputed, and sharded by FSDP2."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from mm1.errors import EveryRankError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.dispatch import ExpertRanks
from mm1.model.lora import set_trained
from mm1.model.parts import blocks_of, recompute_layers
from mm1.model.sharded_start import Share
from mm1.model.sparse import Experts, Router
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
    set_trained(model, recipe)
    if recipe.activation_checkpointing:
        recompute_layers(model)
    tower, decoder = blocks_of(model.model.vision_tower), blocks_of(model.model.language_model)
    if compiles(recipe.compile, world.device):
        for block in (*tower, *decoder):
            block.compile()
    # Batch norms have statistics in float32, which FSDP doesn't cast; torch wants scale and shift to be like them.
    float32_parts = [module for module in model.modules() if isinstance(module, Router | nn.BatchNorm2d)]
    units = [*_grouped(tower, max(map(_size, decoder))), *([block] for block in decoder)]
    shard_model(model, units, world, recipe, autocast, float32_parts=float32_parts)


def _grouped(blocks: list[nn.Module], size: int) -> list[list[nn.Module]]:
    """Divide a tower's blocks into the fewest equal groups that are no larger than one block of the decoder.

    A tower's blocks are small: gathered one by one, they cost more messages than the decoder's, for a fraction of its
    bytes.

    Args:
        blocks: The tower's, in order.
        size: Parameters of the decoder's largest block.
    """
    if not blocks:
        return []
    groups = min(len(blocks), -(-sum(map(_size, blocks)) // size))
    borders = [number * len(blocks) // groups for number in range(groups + 1)]
    return [blocks[first:last] for first, last in pairwise(borders)]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def share_of(world: World, recipe: TrainRecipe) -> Share:
    """Return which part of every parameter this rank holds.

    Raises:
        UserError: If the number of ranks isn't a multiple of the replicas.
    """
    if world.size % recipe.replicas:
        raise EveryRankError(
            f"train.replicas {recipe.replicas} does not divide the {world.size} ranks: set it to a divisor of "
            f"{world.size}"
        )
    parts = world.size // recipe.replicas
    return Share(world.rank % parts, parts, recipe.expert_parallel)


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
        recipe: Gives `replicas`, `expert_parallel` and `reshard_after_forward`.
        autocast: The precision in which sharded blocks compute; gradients are reduced in float32.
        float32_parts: Modules that compute in float32 instead.

    Raises:
        UserError: If the number of ranks isn't a multiple of the replicas.
    """
    if world.size == 1:
        return
    share = share_of(world, recipe)
    mesh = make_mesh(world, recipe, shard=share.parts)
    settings: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=autocast, reduce_dtype=torch.float32),
    }
    spread_experts(model, share, world, recipe, settings["mp_policy"])
    for part in float32_parts:
        fully_shard(part, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))
    for unit in units:
        fully_shard(unit, reshard_after_forward=recipe.reshard_after_forward, **settings)
    # All other parameters (embeddings, which may be tied to the head, norms, the connector) form the root's group,
    # which stays gathered during a forward pass.
    fully_shard(model, **settings)


def make_mesh(world: World, recipe: TrainRecipe, **dimensions: int) -> DeviceMesh:
    """Return the ranks as a mesh of the named dimensions, before them `replicate` if there are replicas."""
    if recipe.replicas > 1:
        dimensions = {"replicate": recipe.replicas, **dimensions}
    return init_device_mesh(world.device.type, tuple(dimensions.values()), mesh_dim_names=tuple(dimensions))


def spread_experts(
    model: nn.Module, share: Share, world: World, recipe: TrainRecipe, policy: MixedPrecisionPolicy
) -> None:
    """Give each rank some experts of every sparse layer, to which the others send their tokens.

    Where there are more ranks than experts, those that hold the same one share its rows by FSDP.

    Args:
        model: The model; a dense one stays as it is.
        share: This rank's part.
        world: The ranks.
        recipe: Gives `replicas`.
        policy: The precision in which experts compute.

    Raises:
        UserError: If the rows of an expert can't be shared.
    """
    layers = [module for module in model.modules() if isinstance(module, Experts)]
    ranks = share.expert_ranks(layers[0].num_experts) if layers else 1
    if ranks == 1:
        return
    owners = share.parts // ranks
    mesh = make_mesh(world, recipe, expert_shard=owners, expert=ranks)
    sharded = mesh["replicate", "expert_shard"] if recipe.replicas > 1 else mesh["expert_shard"]
    spread = mesh["expert"]
    mesh["expert_shard", "expert"]._flatten()  # norms are summed over both at once
    for experts in layers:
        for name, parameter in list(experts.named_parameters()):
            number, rows = parameter.shape[0] // ranks, parameter.shape[1]
            if rows % owners:
                raise EveryRankError(
                    f"{owners} ranks can't share the {rows} rows of an expert's {name}: set train.expert_parallel: 1"
                )
            own = parameter.detach().new_empty(number, *parameter.shape[1:])
            placed = DTensor.from_local(
                own, spread, [Shard(0)], run_check=False, shape=parameter.shape, stride=parameter.stride()
            )
            setattr(experts, name, nn.Parameter(placed, parameter.requires_grad))
        experts.ranks = ExpertRanks(spread.get_group(), experts.num_experts)
        unit: Any = fully_shard(experts, mesh=sharded, mp_policy=policy, shard_placement_fn=lambda _: Shard(1))
        # Tokens of all ranks of the mesh have added to these gradients already.
        unit.set_gradient_divide_factor(world.size)
        # gloo has no multiplied sums. A single owner's gradients aren't summed; FSDP would divide them twice.
        unit.set_force_sum_reduction_for_comms(owners > 1)


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


def mesh_of(tensor: torch.Tensor) -> DeviceMesh | None:
    """Return the mesh of ranks that a tensor is sharded over; None: it is whole."""
    return tensor.device_mesh if isinstance(tensor, DTensor) else None
