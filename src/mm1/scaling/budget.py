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
from mm1.model.parts import blocks_of
from mm1.model.sizes import flops_per_step, parameters_by_part, unit_flops
from mm1.recipe import Recipe
from mm1.scaling.gpus import GPU
from mm1.scaling.memory import activation_bytes
from mm1.scaling.subject import as_trained
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
    weights = _Weights.of(model, recipe)
    several = batch > gpus
    activations = {again: _activations(recipe, workload, gpus, again, several) for again in (False, True)}
    flops = _step_flops(model, recipe, workload, recompute=False)
    hardware = _step_flops(model, recipe, workload, recompute=True)
    recomputed = sum(hardware.values()) - sum(flops.values())
    budgets = []
    for layout in _layouts(batch, gpus, gpu.per_node):
        memory = _memory(weights, layout, activations[layout.recompute])
        again = recomputed if layout.recompute else 0.0
        if tokens_per_second is None:
            compute = (sum(flops.values()) + again) / (gpus * gpu.peak * mfu)
        else:
            compute = batch * workload.length / (gpus * tokens_per_second)
        communication = _communication(weights, layout, gpu)
        moved = sum(_bytes_sent(weights, layout))
        reached = sum(flops.values()) / (gpus * gpu.peak * max(compute, communication))
        budgets.append(
            Budget(recipe, gpu, gpus, workload, layout, memory, flops, again, compute, communication, moved, reached)
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


def _layouts(batch: int, gpus: int, per_node: int) -> Iterator[Layout]:
    """Yield all layouts: one copy over all GPUs or over a machine's; every micro-batch that divides the batch."""
    own = batch // gpus
    shards = {gpus, per_node} if gpus > per_node and gpus % per_node == 0 else {gpus}
    for shard in sorted(shards):
        for micro in (m for m in range(1, own + 1) if own % m == 0):
            for recompute in (False, True):
                yield Layout(shard, gpus // shard, micro, own // micro, recompute)


@dataclass(frozen=True)
class _Weights:
    """Numbers of parameters.

    Attributes:
        all: All parameters.
        trained: Parameters that are not frozen.
        root: Parameters outside of blocks, which are gathered for the whole forward pass.
        largest: Parameters of the largest two neighbouring blocks.
        block: Parameters of the largest block.
        largest_parameter: Size of the largest parameter that is not frozen.
        sums: Rows and columns of all matrices plus lengths of all vectors, without frozen ones: Adafactor's state.
        adafactor: Whether the optimizer is Adafactor; else it is AdamW.
    """

    all: int
    trained: int
    root: int
    largest: int
    block: int
    largest_parameter: int
    sums: int
    adafactor: bool

    @staticmethod
    def of(model: MM1ForConditionalGeneration, recipe: Recipe) -> _Weights:
        parts = parameters_by_part(model)
        parts["language_model"] += parts.pop("embeddings")
        trained = sum(count for part, count in parts.items() if part not in recipe.train.freeze)
        towers = [model.model.vision_tower, model.model.language_model]
        sizes = [[sum(p.numel() for p in block.parameters()) for block in blocks_of(tower)] for tower in towers]
        pairs = [sum(pair) for tower in sizes for pair in zip(tower, [*tower[1:], 0], strict=True)]
        total = sum(parts.values())
        parameters = [p for p in model.parameters() if p.requires_grad]
        if recipe.train.lora is not None:
            trained = sum(p.numel() for p in parameters)
        return _Weights(
            all=total,
            trained=trained,
            root=total - sum(map(sum, sizes)),
            largest=max(pairs),
            block=max(map(max, sizes)),
            largest_parameter=max((p.numel() for p in parameters), default=0),
            sums=sum(
                p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.ndim > 1 else p.numel() for p in parameters
            ),
            adafactor=recipe.train.optimizer == "adafactor",
        )

    def optimizer_bytes(self, shard: int) -> float:
        """Return the bytes of the optimizer's state on one GPU: AdamW's is sharded, Adafactor's is not."""
        return 4 * self.sums if self.adafactor else 8 * self.trained / shard

    def update_bytes(self) -> float:
        """Return the bytes of a step's temporaries on one GPU.

        torch's fused AdamW has none. Adafactor updates one parameter at a time (`mm1.train.adafactor.Adafactor`): it
        gathers the parameter and its gradient, and allocates two tensors of this size.
        """
        return 16 * self.largest_parameter if self.adafactor else 0.0


def _memory(weights: _Weights, layout: Layout, activations: tuple[int, int]) -> Memory:
    one, further = activations
    gathered = 0
    if layout.shard * layout.replicas > 1:
        # bfloat16 weights of the root and two blocks, the root's gradient, one block's gradient in float32
        gathered = 2 * (weights.root + weights.largest) + 2 * weights.root + 4 * weights.block
    return Memory(
        weights=4 * weights.all / layout.shard,
        gradients=4 * weights.trained / layout.shard,
        optimizer=weights.optimizer_bytes(layout.shard),
        gathered=gathered,
        activations=one + (layout.micro_batch - 1) * further,
        update=weights.update_bytes(),
    )


def _activations(recipe: Recipe, workload: Workload, gpus: int, recompute: bool, several: bool) -> tuple[int, int]:
    """Return the bytes of a micro-batch's first sequence and of each further one (0 unless there are `several`).

    The count assumes the largest number of images, and that every token is a target. No sequence has both, so a batch
    of any kind fits.
    """
    one = _activation_bytes(recipe, workload, gpus, recompute, rows=1)
    return one, _activation_bytes(recipe, workload, gpus, recompute, rows=2) - one if several else 0


def _activation_bytes(recipe: Recipe, workload: Workload, gpus: int, recompute: bool, rows: int) -> int:
    model = as_trained(recipe)
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


def _bytes_sent(weights: _Weights, layout: Layout) -> tuple[float, float]:
    """Return the bytes that one GPU sends in a step: among those that share a copy, and between copies.

    A ring moves (n - 1) / n of the gathered or reduced data past every GPU. Per micro-batch FSDP gathers bfloat16
    weights before the forward and the backward pass, and reduces float32 gradients. Once a step, an all-reduce between
    replicas moves its share twice. A step of Adafactor gathers all weights and gradients in float32, one parameter at a
    time.
    """
    ring = (layout.shard - 1) / layout.shard
    inside = layout.micro_batches * ring * (2 * 2 * weights.all + 4 * weights.trained)
    update = ring * 8 * weights.trained if weights.adafactor else 0.0
    across = 2 * (layout.replicas - 1) / layout.replicas * 4 * weights.trained / layout.shard
    return inside + update, across


def _communication(weights: _Weights, layout: Layout, gpu: GPU) -> float:
    """Return the seconds of a step's collectives on one GPU.

    With several machines every ring crosses from one machine to the next once, and the GPUs of a machine share the
    bandwidth of its adapters. An all-reduce between replicas goes over each GPU's own adapter.
    """
    one_node = layout.shard <= gpu.per_node
    bandwidth = gpu.link if one_node else min(gpu.link, gpu.per_node * gpu.network)
    inside, across = _bytes_sent(weights, layout)
    return (inside / bandwidth + across / gpu.network) / LINK_EFFICIENCY
