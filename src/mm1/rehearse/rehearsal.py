"""A rehearsal: what one rank of a run on some GPUs does in a step, and whether the GPU has room for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mm1.errors import UserError
from mm1.model.resolve import resolve_models
from mm1.model.shape import recipe_config, vocabulary_size
from mm1.recipe import Recipe
from mm1.rehearse.batch import fills, shapes
from mm1.rehearse.compiled import Compiled, compile_blocks
from mm1.rehearse.stalls import Place
from mm1.rehearse.step import Observed, observe
from mm1.rehearse.world import rehearsed_world
from mm1.scaling.budget import RESERVE
from mm1.scaling.gpus import GPU

DISPATCH = "model/dispatch.py:"
"""Begins the place where the host reads how many tokens go to which rank: once per sparse layer and pass."""


@dataclass(frozen=True)
class Rehearsal:
    """A rank of a run, rehearsed.

    Attributes:
        recipe: The run's recipe.
        gpu: The type of GPU.
        gpus: The number of GPUs.
        rank: The rank.
        micro_batch: Sequences per micro-batch.
        seen: What it did.
        varying: Tensors of a batch whose shapes depend on what is in the batch, with the shapes.
        compiled: What compiling the blocks does; None: the recipe doesn't compile.
    """

    recipe: Recipe
    gpu: GPU
    gpus: int
    rank: int
    micro_batch: int
    seen: Observed
    varying: dict[str, dict[str, tuple[int, ...]]]
    compiled: Compiled | None

    @property
    def room(self) -> float:
        """Bytes of the GPU's memory that are used at most."""
        return (1 - RESERVE) * self.gpu.memory

    @property
    def peaks(self) -> dict[str, int]:
        """Bytes on the GPU by phase."""
        return {phase: sum(kinds.values()) for phase, kinds in self.seen.memory.items()}

    @property
    def needless_stalls(self) -> dict[Place, int]:
        """Where the host waits for the GPU and need not: everywhere but where tokens for experts are counted."""
        return {key: times for key, times in self.seen.stalls.items() if not key[1].startswith(DISPATCH)}

    @property
    def too_large(self) -> list[str]:
        """The phases that don't fit."""
        return [phase for phase, peak in self.peaks.items() if peak > self.room]

    def as_json(self) -> dict[str, Any]:
        """Return the rehearsal for JSON."""
        return {
            "recipe": self.recipe.name,
            "gpu": self.gpu.name,
            "gpus": self.gpus,
            "rank": self.rank,
            "micro_batch_size": self.micro_batch,
            "room": self.room,
            "peaks": self.peaks,
            "does_not_fit": self.too_large,
            **self.seen.as_json(),
            "varying_shapes": self.varying,
            "compile": None if self.compiled is None else vars(self.compiled),
        }


def rehearse(recipe: Recipe, gpu: GPU, gpus: int, rank: int = 0) -> Rehearsal:
    """Make one step of a run on one of its ranks, on tensors without contents.

    Rank 0 has the most of everything: where weights can't be divided evenly, the first ranks have more.

    Args:
        recipe: The run's recipe. Of models that it starts from, only configurations are read.
        gpu: The type of GPU.
        gpus: The number of GPUs.
        rank: The rank to rehearse; a process can rehearse one rank of a number of GPUs.

    Raises:
        UserError: If the rank doesn't exist, GPUs don't divide the batch, or the model can't be built.
    """
    if not 0 <= rank < gpus:
        raise UserError(f"--rank {rank}: {gpus} GPUs have the ranks 0 to {gpus - 1}")
    resolved = resolve_models(recipe, weights=False)
    config = recipe_config(resolved.model, vocabulary_size(resolved))
    autocast = None if recipe.train.dtype == "float32" else torch.bfloat16
    with rehearsed_world(gpus, rank) as world:
        micro, _ = world.micro_batches(recipe.train)
        seen = observe(resolved, world, autocast)
    batches = fills(recipe, config.image_seq_length, config.vision_config.image_size, micro)
    found = {name: shapes(batch) for name, batch in batches.items()}
    varying = {
        tensor: {name: shape[tensor] for name, shape in found.items()}
        for tensor in next(iter(found.values()))
        if len({shape[tensor] for shape in found.values()}) > 1
    }
    compiled = compile_blocks(recipe) if recipe.train.compile else None
    return Rehearsal(recipe, gpu, gpus, rank, micro, seen, varying, compiled)
