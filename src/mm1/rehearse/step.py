"""One rank's way from the start of a run to its export, watched.

Works on real tensors and ranks too, which tests hold the rehearsal against.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mm1.model import MM1ForConditionalGeneration
from mm1.model.configuration import MM1Config
from mm1.model.shape import vocabulary_size
from mm1.model.sharded_start import start_sharded
from mm1.plan.loader import Batch
from mm1.processing.images import normalize_pixels
from mm1.processing.processor import MM1Processor
from mm1.recipe import Recipe
from mm1.rehearse.batch import fullest_batch, without_contents
from mm1.rehearse.checkpoint import host_bytes
from mm1.rehearse.ledger import ACTIVATIONS, GRADIENTS, HOST, OPTIMIZER, WEIGHTS
from mm1.rehearse.stalls import Place
from mm1.rehearse.watch import Watch
from mm1.train.copies import StepBatches
from mm1.train.loop import Trainer
from mm1.train.objective import Losses, language_model_loss
from mm1.train.optimizer import build_optimizer
from mm1.train.parallel import World
from mm1.train.sharding import prepare_model, share_of
from mm1.train.telemetry import Window

START, STEP, CHECKPOINT, EXPORT = "start", "step", "checkpoint", "export"
PHASES = (START, STEP, CHECKPOINT, EXPORT)
BUILD, FIRST, LAST = "build", "first micro-batch", "last micro-batch"


@dataclass
class Observed:
    """What one rank did.

    Attributes:
        memory: By phase, the bytes on the device of each kind at the moment when they are most together.
        host: By phase, the largest number of bytes on the host.
        sent: Bytes that the rank sends in a step, by mesh dimension and collective.
        calls: Number of these collectives.
        stalls: How often the host waits for the device in a step, by reason and place.
        micro_batches: Micro-batches of a step.
    """

    memory: dict[str, dict[str, int]]
    host: dict[str, int]
    sent: dict[tuple[str, str], int]
    calls: dict[tuple[str, str], int]
    stalls: dict[Place, int]
    micro_batches: int

    def as_json(self) -> dict[str, Any]:
        """Return the same with texts as keys, which JSON asks for."""
        joined = {
            name: {" ".join(key): count for key, count in getattr(self, name).items()}
            for name in ("sent", "calls", "stalls")
        }
        return {**vars(self), **joined}


def observe(recipe: Recipe, world: World, autocast: torch.dtype | None) -> Observed:
    """Build, shard fill and train a recipe's model for one step, plan its checkpoint and its export.

    Args:
        recipe: The recipe with resolved models (see `mm1.model.resolve.resolve_models`).
        world: The ranks.
        autocast: The precision of matrix products.
    """
    watch = Watch()
    with watch, tempfile.TemporaryDirectory() as folder:
        model = _start(recipe, world, autocast, watch)
        optimizer = build_optimizer(model, recipe.train, 1e-4)
        trainer, micro_batches = _trainer(recipe, model, optimizer, world, autocast, watch, Path(folder))
        _initialise(optimizer, watch)
        _step(trainer, recipe, model.config, watch)
        watch.phase(CHECKPOINT)
        saving, exporting = host_bytes(trainer.checkpointer, model, world)
        watch.phase(EXPORT)
    step = {STEP: 1, FIRST: micro_batches - 1, LAST: 1}
    phases = {START: [START], STEP: step, CHECKPOINT: [CHECKPOINT], EXPORT: [EXPORT]}
    memory = {name: watch.ledger.peak(parts) for name, parts in phases.items()}
    return Observed(
        memory=memory,
        host={
            START: sum(watch.ledger.peak([START], [HOST]).values()),
            CHECKPOINT: saving,
            EXPORT: exporting,
        },
        sent=dict(_times(watch.traffic.sent, step)),
        calls=dict(_times(watch.traffic.calls, step)),
        stalls=dict(_times(watch.stalls.counts, step)),
        micro_batches=micro_batches,
    )


def _times(counts: Mapping[str, Counter[Any]], times: Mapping[str, int]) -> Counter[Any]:
    """Return the counts of several phases, each so many times, together."""
    total: Counter[Any] = Counter()
    for phase, number in times.items():
        for key, count in counts.get(phase, Counter()).items():
            total[key] += number * count
    return total


def _start(recipe: Recipe, world: World, autocast: torch.dtype | None, watch: Watch) -> MM1ForConditionalGeneration:
    """Return the sharded model."""
    watch.phase(BUILD)
    words, model = vocabulary_size(recipe), recipe.model
    start = start_sharded(
        model,
        vocab_size=words,
        image_token_id=words - 1,
        seed=recipe.seed,
        share=share_of(world, recipe.train),
        resumes=True,  # so that no files are needed: pre-trained parts are drawn too, in place of reading them
    )
    decoder, tower = model.language_model.attention, model.vision.attention
    start.model.set_attn_implementation({"text_config": _fused(decoder), "vision_config": _fused(tower)})
    watch.collect()
    watch.phase(START)
    prepare_model(start.model, world, recipe.train.model_copy(update={"compile": False}), autocast)

    def on_host(name: str, shape: torch.Size) -> torch.Tensor:
        part = part_of(name, shape)
        watch.ledger.name([part], HOST)
        return part

    part_of = start.part_of
    with patch.object(start, "part_of", on_host):
        start.fill(world.device)
    tensors = [*start.model.parameters(), *start.model.buffers()]
    watch.ledger.name(tensors, WEIGHTS)
    watch.stalls.to_device(tensors)
    return start.model


def _fused(names: str | Sequence[str]) -> str:
    """Return the attention to rehearse with: `eager` keeps all scores, every other one is a kernel."""
    name = names if isinstance(names, str) else names[0]
    return name if name in ("eager", "sdpa") else "varlen"


def _initialise(optimizer: torch.optim.Optimizer, watch: Watch) -> None:
    """Make the optimizer's state, which every step but the first finds in memory."""
    watch.phase("")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    watch.ledger.name((v for s in optimizer.state.values() for v in s.values() if v.ndim), OPTIMIZER)


def _trainer(
    recipe: Recipe,
    model: MM1ForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    world: World,
    autocast: torch.dtype | None,
    watch: Watch,
    folder: Path,
) -> tuple[Trainer, int]:
    """Return the loop that trains the model, and the number of micro-batches that a step has on one rank."""
    _, micro_batches = world.micro_batches(recipe.train)
    pixels = cast(MM1Processor, _Pixels())

    def loss(batch: Batch, number: int) -> Losses:
        watch.stalls.to_device(batch.values())
        watch.ledger.name((value for value in batch.values() if isinstance(value, torch.Tensor)), ACTIVATIONS)
        watch.ledger.name((p.grad for p in model.parameters() if p.grad is not None), GRADIENTS)
        watch.phase(LAST if number == rehearsed - 1 else FIRST)
        return language_model_loss(model, pixels, batch, recipe.train.z_loss, True)

    rehearsed = min(2, micro_batches)
    trainer = Trainer(
        model,
        optimizer,
        lambda step: cast(Any, None),
        loss,
        recipe.train,
        folder,
        world=world,
        micro_batches=rehearsed,
        autocast=autocast if world.size == 1 else None,
    )
    return trainer, micro_batches


class _Pixels:
    """The part of a processor that training uses."""

    rescale_factor, image_mean, image_std = 1 / 255, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    def normalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return normalize_pixels(pixel_values, self)


def _step(trainer: Trainer, recipe: Recipe, config: MM1Config, watch: Watch) -> None:
    micro, _ = trainer.world.micro_batches(recipe.train)
    size = config.vision_config.image_size
    batches = [
        without_contents(fullest_batch(recipe, config.image_seq_length, size, micro))
        for _ in range(trainer.micro_batches)
    ]
    watch.collect()
    watch.phase(STEP)
    with _gradients_named(trainer, watch):
        trainer._step(0, StepBatches(iter(batches), trainer.micro_batches), Window())


@contextmanager
def _gradients_named(trainer: Trainer, watch: Watch) -> Iterator[None]:
    """Name gradients before the optimizer changes weights by them."""

    def name(*_: Any) -> None:
        parameters = trainer.model.parameters()
        watch.ledger.name((p.grad for p in parameters if p.grad is not None), GRADIENTS)

    handle = trainer.optimizer.register_step_pre_hook(name)
    try:
        yield
    finally:
        handle.remove()
