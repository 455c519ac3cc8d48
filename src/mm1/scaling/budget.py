"""Estimates memory, time, communication and cost of a training run on a number of GPUs, and chooses the layout.

Computation:     FLOPs of a step (`mm1.model.sizes.flops_per_step`) over the GPUs' peak times a stated utilisation.
Communication:   bytes that FSDP2 moves in the setup of `mm1.train.parallel`, over the links' stated bandwidth. Blocks
                 are fetched while others compute, so a step takes the longer of the two times.
Memory:          exact for weights, gradients and optimizer; `mm1.scaling.memory` counts activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.sharded_start import Share
from mm1.model.sizes import flops_per_step, unit_flops
from mm1.recipe import Recipe
from mm1.scaling.gpus import GPU
from mm1.scaling.memory import activation_bytes
from mm1.scaling.subject import as_trained
from mm1.scaling.weights import Sent, Weights, bytes_sent
from mm1.scaling.workload import Workload, recipe_workload

MFU = 0.4
"""Default share of the peak that training reaches: Llama 3 405B trained at 0.38 to 0.43 on H100 (arXiv 2407.21783,
table 4). Not measured here."""
LINK_EFFICIENCY = 0.8
"""Assumed share of a link's stated bandwidth that large collectives reach. Not measured here."""
RESERVE = 0.1
"""Assumed share of the memory for the driver, the communication library and fragmentation. Not measured here."""


@dataclass(frozen=True)
class Layout:
    """The layout of a step over the GPUs.

    Attributes:
        shard: GPUs that share one copy of weights, gradients and optimizer state.
        replicas: Number of copies (`train.replicas`).
        micro_batch: Sequences per forward pass on one GPU.
        micro_batches: Forward passes per step on one GPU.
        recompute: Whether activations are recomputed (`train.activation_checkpointing`).
    """

    shard: int
    replicas: int
    micro_batch: int
    micro_batches: int
    recompute: bool


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        weights: This GPU's share of the weights in float32.
        gradients: This GPU's share of the gradients in float32.
        optimizer: This GPU's share of AdamW's two moments; for Adafactor all row and column sums.
        gathered: Weights that FSDP has gathered: the root's (embeddings, head, connector) and two blocks, with the
            buffer in which a block's gradient is reduced.
        activations: Activations of one micro-batch.
        update: Temporaries of the optimizer step, when no activations are kept.
    """

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    update: float

    @property
    def total(self) -> float:
        """The peak."""
        return self.weights + self.gradients + self.optimizer + max(self.gathered + self.activations, self.update)


@dataclass(frozen=True)
class Budget:
    """The memory, time and cost of a run.

    Attributes:
        recipe: The run's recipe.
        gpu: The type of GPU.
        gpus: The number of GPUs.
        workload: The content of a step.
        layout: The layout of a step.
        memory: The memory per GPU.
        flops: FLOPs of a step by part, without recomputation.
        recomputed_flops: FLOPs of a step's recomputation.
        compute_seconds: Computation time of a step.
        communication_seconds: Communication time of a step.
        communication_bytes: Bytes that one GPU sends in a step.
        mfu: Model FLOPs utilisation of the step; recomputation doesn't count.
    """

    recipe: Recipe
    gpu: GPU
    gpus: int
    workload: Workload
    layout: Layout
    memory: Memory
    flops: dict[str, float]
    recomputed_flops: float
    compute_seconds: float
    communication_seconds: float
    communication_bytes: float
    mfu: float

    @property
    def step_seconds(self) -> float:
        """The longer of computation and communication, which overlap."""
        return max(self.compute_seconds, self.communication_seconds)

    @property
    def days(self) -> float:
        """Days of the whole run, without interruptions, evaluation and checkpoints."""
        return self.step_seconds * self.workload.steps / 86_400

    @property
    def gpu_hours(self) -> float:
        """GPU hours of the whole run, over all GPUs."""
        return 24 * self.days * self.gpus


def make_budget(
    recipe: Recipe,
    gpu: GPU,
    gpus: int,
    *,
    mfu: float = MFU,
    tokens_per_second: float | None = None,
    document_length: int | None = None,
) -> Budget:
    """Return the budget of the fastest layout that fits.

    Args:
        recipe: Gives model, sequences, batch, steps and frozen parts.
        gpu: The type of GPU.
        gpus: The number of GPUs.
        mfu: Share of the peak at which matrix products run, including recomputed ones.
        tokens_per_second: Measured training speed of one GPU, image tokens included; replaces `mfu`.
        document_length: See `recipe_workload`.

    Raises:
        UserError: If the GPUs don't divide the batch, no layout fits, or the model can't be built.
    """
    batch = recipe.train.batch_size
    if batch % gpus:
        raise UserError(
            f"train.batch_size {batch} can't be divided over {gpus} GPUs: use a number of GPUs that divides it, or "
            "--set train.batch_size"
        )
    model = as_trained(recipe)
    workload = recipe_workload(recipe, model.config.image_seq_length, document_length)
    several = batch > gpus
    activations = {again: _activations(recipe, workload, gpus, again, several) for again in (False, True)}
    flops = _step_flops(model, recipe, workload, recompute=False)
    hardware = _step_flops(model, recipe, workload, recompute=True)
    recomputed = sum(hardware.values()) - sum(flops.values())
    on_gpus = {shard: Weights.of(model, recipe, shard) for shard in _shards(gpus, gpu.per_node)}
    budgets = []
    for layout in _layouts(batch, gpus, gpu.per_node):
        weights = on_gpus[layout.shard]
        memory = _memory(weights, layout, activations[layout.recompute])
        again = recomputed if layout.recompute else 0.0
        if tokens_per_second is None:
            compute = (sum(flops.values()) + again) / (gpus * gpu.peak * mfu)
        else:
            compute = batch * workload.length / (gpus * tokens_per_second)
        tokens = layout.micro_batch * workload.length
        sent = bytes_sent(weights, layout.replicas, layout.micro_batches, tokens, layout.recompute)
        communication = _communication(sent, weights, layout, gpu)
        reached = sum(flops.values()) / (gpus * gpu.peak * max(compute, communication))
        budgets.append(
            Budget(
                recipe,
                gpu,
                gpus,
                workload,
                layout,
                memory,
                flops,
                again,
                compute,
                communication,
                communication_bytes=sum(sent),
                mfu=reached,
            )
        )
    room = (1 - RESERVE) * gpu.memory
    fitting = [budget for budget in budgets if budget.memory.total <= room]
    if not fitting:
        least = min(budget.memory.total for budget in budgets)
        raise UserError(
            f"{recipe.name} does not fit on {gpus} x {gpu.name}: the smallest layout takes {least / 1e9:.0f} GB per "
            f"GPU, and {room / 1e9:.0f} GB are available: use more or larger GPUs"
        )
    # Of equally fast layouts the simplest: without recomputation, with least communication, with fewest passes.
    return min(
        fitting,
        key=lambda b: (b.step_seconds, b.layout.recompute, b.communication_seconds, b.layout.micro_batches),
    )


def _shards(gpus: int, per_node: int) -> list[int]:
    """Return over how many GPUs one copy may be sharded."""
    return sorted({gpus, per_node} if gpus > per_node and gpus % per_node == 0 else {gpus})


def _layouts(batch: int, gpus: int, per_node: int) -> Iterator[Layout]:
    """Yield all layouts: one copy over all GPUs or over a machine's; every micro-batch that divides the batch."""
    own = batch // gpus
    for shard in _shards(gpus, per_node):
        for micro in (m for m in range(1, own + 1) if own % m == 0):
            for recompute in (False, True):
                yield Layout(shard, gpus // shard, micro, own // micro, recompute)


def _memory(weights: Weights, layout: Layout, activations: tuple[int, int]) -> Memory:
    one, further = activations
    return Memory(
        weights=4 * weights.all / layout.shard,
        gradients=4 * weights.trained / layout.shard,
        optimizer=weights.optimizer_bytes,
        gathered=weights.gathered_bytes if layout.shard * layout.replicas > 1 else 0,
        activations=one + (layout.micro_batch - 1) * further,
        update=weights.update_bytes,
    )


def _activations(recipe: Recipe, workload: Workload, gpus: int, recompute: bool, several: bool) -> tuple[int, int]:
    """Return the bytes of a micro-batch's first sequence and of each further one (0 unless there are `several`).

    The count assumes the largest number of images, and that every token is a target. No sequence has both, so a batch
    of any kind fits.
    """
    one = _activation_bytes(recipe, workload, gpus, recompute, rows=1)
    return one, _activation_bytes(recipe, workload, gpus, recompute, rows=2) - one if several else 0


def _activation_bytes(recipe: Recipe, workload: Workload, gpus: int, recompute: bool, rows: int) -> int:
    model = as_trained(_with_experts_held(recipe, gpus))
    low = None if recipe.train.dtype == "float32" else torch.bfloat16
    sharded = gpus > 1
    attention = recipe.model.language_model.attention
    return activation_bytes(
        model,
        rows=rows,
        length=workload.length,
        images=rows * workload.most_images,
        target=rows * workload.length,
        dtype=low if sharded and low else torch.float32,
        autocast=None if sharded else low,
        attention=attention if isinstance(attention, str) else attention[0],
        recompute=recompute,
        z_loss=recipe.train.z_loss,
    )


def _with_experts_held(recipe: Recipe, gpus: int) -> Recipe:
    """Return a recipe with as many experts as a GPU holds, whose gradients are the only ones that it makes."""
    language = recipe.model.language_model
    held = language.num_experts // Share(0, gpus, recipe.train.expert_parallel).expert_ranks(language.num_experts)
    language = language.model_copy(update={"num_experts": max(held, language.experts_per_token) if held else 0})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"language_model": language})})


def _step_flops(
    model: MM1ForConditionalGeneration, recipe: Recipe, workload: Workload, recompute: bool
) -> dict[str, float]:
    n = workload.sequences
    return flops_per_step(
        unit_flops(model),
        tokens=n * workload.length,
        pairs=n * workload.pairs,
        target_tokens=n * workload.target_tokens,
        images=n * workload.images,
        frozen=recipe.train.unchanged,
        recompute=recompute,
    )


def _communication(sent: Sent, weights: Weights, layout: Layout, gpu: GPU) -> float:
    """Return the seconds of a step's collectives on one GPU.

    With several machines every ring crosses from one machine to the next once, and the GPUs of a machine share the
    bandwidth of its adapters. What goes from all to all, and between replicas, goes over each GPU's own adapter.
    """
    one_node = layout.shard <= gpu.per_node
    ring = gpu.link if one_node else min(gpu.link, gpu.per_node * gpu.network)
    exchange = gpu.link if weights.expert_ranks <= gpu.per_node else gpu.network
    seconds = sent.gathered / ring + sent.exchanged / exchange + sent.between_replicas / gpu.network
    return seconds / LINK_EFFICIENCY
