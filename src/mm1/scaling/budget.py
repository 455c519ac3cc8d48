"""What a training run takes on a number of GPUs: memory, time, communication, cost; and how to lay it out.

Computation:     FLOPs of a step (`mm1.model.sizes.flops_per_step`) over the GPUs' peak times a stated utilisation.
Communication:   bytes that FSDP2 moves as `mm1.train.parallel` sets it up, over the links' stated bandwidth. Blocks
                 are fetched while others compute, so a step takes the longer of the two.
Memory:          exact for weights, gradients and optimizer; activations counted by `mm1.scaling.memory`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.parts import blocks_of, parts_of
from mm1.model.sizes import flops_per_step, parameters_by_part, unit_flops
from mm1.recipe import Recipe
from mm1.scaling.gpus import GPU
from mm1.scaling.memory import activation_bytes
from mm1.scaling.subject import shape_of
from mm1.scaling.workload import Workload, recipe_workload

MFU = 0.4
"""Share of the peak that is reached where nothing else is said: Llama 3 405B trained at 0.38 to 0.43 on H100 (arXiv
2407.21783, table 4). Not measured here."""
LINK_EFFICIENCY = 0.8
"""Share of a link's stated bandwidth that large collectives are taken to reach. Not measured here."""
RESERVE = 0.1
"""Share of the memory left for the driver, the communication library and fragmentation. Not measured here."""


@dataclass(frozen=True)
class Layout:
    """How a step is laid out over the GPUs.

    Attributes:
        shard: GPUs that share one copy of weights, gradients and optimizer state.
        replicas: Copies (`train.replicas`).
        micro_batch: Sequences of a forward pass on one GPU.
        micro_batches: Forward passes of a step on one GPU.
        recompute: Whether activations are computed again (`train.activation_checkpointing`).
    """

    shard: int
    replicas: int
    micro_batch: int
    micro_batches: int
    recompute: bool


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the worst moment.

    Attributes:
        weights: In float32, this GPU's share.
        gradients: The same.
        optimizer: AdamW's two moments, this GPU's share; Adafactor's row and column sums, whole.
        gathered: Weights that FSDP has in full: the root's (embeddings, head, connector) and two blocks, with
            the buffer that a block's gradient is reduced in.
        activations: Of one micro-batch.
        update: Temporaries of the optimizer's step, when there are no activations any more.
    """

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    update: float

    @property
    def total(self) -> float:
        """The most at once."""
        return self.weights + self.gradients + self.optimizer + max(self.gathered + self.activations, self.update)


@dataclass(frozen=True)
class Budget:
    """What a run takes.

    Attributes:
        recipe: The run.
        gpu: Of this kind.
        gpus: So many.
        workload: What a step processes.
        layout: How it is laid out.
        memory: Per GPU.
        flops: Of a step by part, without what is computed again.
        recomputed_flops: Of a step, computed again.
        compute_seconds: Of a step.
        communication_seconds: Of a step.
        mfu: Model FLOPs utilisation of the step, recomputed products not counted.
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
    mfu: float

    @property
    def step_seconds(self) -> float:
        """The longer of computation and communication, which overlap."""
        return max(self.compute_seconds, self.communication_seconds)

    @property
    def days(self) -> float:
        """Of the whole run, without stops, evaluation and checkpoints."""
        return self.step_seconds * self.workload.steps / 86_400

    @property
    def gpu_hours(self) -> float:
        """All GPUs together."""
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
    """Return the fastest layout that fits, and what the run takes with it.

    Args:
        recipe: Model, sequences, batch, steps, what is frozen.
        gpu: What one GPU can do.
        gpus: How many.
        mfu: Share of the peak that matrix products run at, those that are computed again included.
        tokens_per_second: What one GPU was measured to train at, image tokens included, in place of `mfu`.
        document_length: See `recipe_workload`.

    Raises:
        UserError: If the batch can't be shared out, no layout fits, or the model can't be described.
    """
    batch = recipe.train.batch_size
    if batch % gpus:
        raise UserError(
            f"train.batch_size {batch} can't be shared out over {gpus} GPUs: take a number of GPUs that divides it, or "
            "--set train.batch_size"
        )
    model = shape_of(recipe)
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
        reached = sum(flops.values()) / (gpus * gpu.peak * max(compute, communication))
        budgets.append(
            Budget(recipe, gpu, gpus, workload, layout, memory, flops, again, compute, communication, reached)
        )
    room = (1 - RESERVE) * gpu.memory
    fitting = [budget for budget in budgets if budget.memory.total <= room]
    if not fitting:
        least = min(budget.memory.total for budget in budgets)
        raise UserError(
            f"{recipe.name} does not fit on {gpus} x {gpu.name}: the leanest layout takes {least / 1e9:.0f} GB on "
            f"each and there is room for {room / 1e9:.0f}: take more GPUs or larger ones"
        )
    # Of equally fast ones the simplest: no recomputation, then the least communication, then fewer passes.
    return min(
        fitting,
        key=lambda b: (b.step_seconds, b.layout.recompute, b.communication_seconds, b.layout.micro_batches),
    )


def _layouts(batch: int, gpus: int, per_node: int) -> Iterator[Layout]:
    """Yield what can be chosen from: one copy over all GPUs or over a machine's; every micro-batch that divides."""
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
        all: In all.
        trained: Those that are not frozen.
        root: Outside of blocks: gathered for the whole forward pass.
        largest: Of the largest two neighbouring blocks.
        block: Of the largest block.
        largest_parameter: Of the largest one that is not frozen.
        sums: Rows and columns of all matrices, and lengths of all vectors, that are not frozen: Adafactor's state.
        adafactor: Whether the optimizer is Adafactor, and not AdamW.
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
        frozen = {id(p) for part in recipe.train.freeze for p in parts_of(model)[part].parameters()}
        parameters = [p for p in model.parameters() if id(p) not in frozen]
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
        """Return the optimizer's state on one GPU: AdamW's is sharded, Adafactor's is whole everywhere."""
        return 4 * self.sums if self.adafactor else 8 * self.trained / shard

    def update_bytes(self, shard: int) -> float:
        """Return the temporaries of a step on one GPU.

        torch's AdamW keeps one more tensor of every weight's size. Adafactor goes from parameter to parameter
        (`mm1.train.optimizer.ShardedAdafactor`): it has one gathered, with its gradient and two tensors of its size.
        """
        return 16 * self.largest_parameter if self.adafactor else 4 * self.trained / shard


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
        update=weights.update_bytes(layout.shard),
    )


def _activations(recipe: Recipe, workload: Workload, gpus: int, recompute: bool, several: bool) -> tuple[int, int]:
    """Return the bytes of one sequence, and of each further one of a micro-batch (0 where there are not `several`).

    The sequences have as many images as one may have, and every token is a target. No sequence has both; so whichever
    kind the batch is of, it fits.
    """
    one = _activation_bytes(recipe, workload, gpus, recompute, rows=1)
    return one, _activation_bytes(recipe, workload, gpus, recompute, rows=2) - one if several else 0


def _activation_bytes(recipe: Recipe, workload: Workload, gpus: int, recompute: bool, rows: int) -> int:
    model = shape_of(recipe)
    for part in recipe.train.freeze:
        parts_of(model)[part].requires_grad_(False)
    low = None if recipe.train.dtype == "float32" else torch.bfloat16
    sharded = gpus > 1
    wanted = recipe.model.language_model.attention
    return activation_bytes(
        model,
        rows=rows,
        length=workload.length,
        images=rows * workload.most_images,
        target=rows * workload.length,
        dtype=low if sharded and low else torch.float32,
        autocast=None if sharded else low,
        attention=wanted if isinstance(wanted, str) else wanted[0],
        recompute=recompute,
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
        frozen=recipe.train.freeze,
        recompute=recompute,
    )


def _communication(weights: _Weights, layout: Layout, gpu: GPU) -> float:
    """Return the seconds of a step's collectives on one GPU.

    A ring moves (n - 1) / n of what is gathered or reduced past every GPU. Per micro-batch FSDP gathers bfloat16
    weights before the forward and the backward pass and reduces float32 gradients. Over several machines every ring
    crosses from one to the next once, and the GPUs of a machine share its adapters' bandwidth; an all-reduce
    between replicas goes over each GPU's own adapter, twice.
    """
    one_node = layout.shard <= gpu.per_node
    bandwidth = gpu.link if one_node else min(gpu.link, gpu.per_node * gpu.network)
    ring = (layout.shard - 1) / layout.shard
    inside = ring * (2 * 2 * weights.all + 4 * weights.trained) / bandwidth
    share = 4 * weights.trained / layout.shard
    across = 2 * (layout.replicas - 1) / layout.replicas * share / gpu.network
    # A step of Adafactor gathers every weight and every gradient in float32, one after another.
    update = ring * 8 * weights.trained / bandwidth if weights.adafactor else 0.0
    return (layout.micro_batches * (inside + across) + update) / LINK_EFFICIENCY
