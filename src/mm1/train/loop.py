"""The training loop: batches in, steps made, curves and checkpoints out.

    for each step:  micro-batches --forward, backward--> gradients --clip--> optimizer step --> log, scores, checkpoint

The loss is normalised over all terms of the whole step (target tokens, or pictures), on all ranks, so that
gradient accumulation and data parallelism give the large batch's gradient. Whatever is random in a step is seeded
by its number.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mm1.errors import Stopped, UserError
from mm1.plan.loader import TrainingBatch
from mm1.progress import console, progress_bar
from mm1.recipe import TrainRecipe
from mm1.train.checkpoint import Checkpointer
from mm1.train.memory import out_of_memory_explained
from mm1.train.objective import Losses
from mm1.train.optimizer import clip_gradients, schedule, set_learning_rate
from mm1.train.parallel import World
from mm1.train.telemetry import SpikeWatch, StepLosses, Terminal, Window
from mm1.train.tracking import open_log

MAX_BAD_IMAGES = 100
"""Unreadable pictures after which training stops."""


@dataclass(frozen=True)
class Compute:
    """What a model's speed is measured by.

    Attributes:
        flops: FLOPs of a micro-batch, forward and backward.
        peak: FLOP/s of one device at its best.
        peak_from: How that is known, in a few words.
    """

    flops: Callable[[Any], float]
    peak: float
    peak_from: str


@dataclass(frozen=True)
class Scoring:
    """Scores during training.

    Attributes:
        every: Steps from one scoring to the next.
        score: Takes the number of steps done and returns figures for the log by name; all ranks call it. It leaves
            the model and the random numbers as they were.
    """

    every: int
    score: Callable[[int], dict[str, float]]


class Trainer:
    """Trains a model over a plan; goes on from the run directory's last checkpoint.

    Args:
        model: On its device, sharded if there are several ranks.
        optimizer: Over its parameters, groups with `peak_lr`.
        loader_from: Gives this rank's micro-batches from a step on.
        loss: Runs the model on a micro-batch; the second argument is the micro-batch's number within the run.
        recipe: Steps, schedule, clipping, how often to log and save.
        directory: The run's.
        world: The ranks that train together.
        micro_batches: How many micro-batches make a step on one rank.
        autocast: `torch.bfloat16` to run matrix products in it, None for what the parameters are in.
        seed: Of whatever is random in the model's forward pass (dropout).
        compute: Gives the log FLOP/s and MFU; None: it has none.
        scoring: Scores during training; None: there are none.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loader_from: Callable[[int], DataLoader[Any]],
        loss: Callable[[Any, int], Losses],
        recipe: TrainRecipe,
        directory: Path,
        *,
        world: World,
        micro_batches: int,
        autocast: torch.dtype | None = None,
        seed: int = 0,
        compute: Compute | None = None,
        scoring: Scoring | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.loader_from, self.micro_batches = loader_from, micro_batches
        self.recipe, self.directory, self.world, self.autocast = recipe, directory, world, autocast
        self.seed, self.compute, self.scoring = seed, compute, scoring
        self.checkpointer = Checkpointer(
            directory / "checkpoints", model, optimizer, world, recipe.keep_checkpoints, recipe.keep_every
        )
        self.state: dict[str, Any] = {
            "step": 0,
            "time": 0.0,
            "tokens": 0,
            "images": 0,
            "bad_images": 0,
            "bad_steps": 0,
            "loss_spikes": 0,
        }
        self.spikes = SpikeWatch()
        self._bad_steps_in_a_row = 0
        self._stop_signal = 0

    def run(self) -> dict[str, Any]:
        """Train to the last step.

        Returns:
            The final state: step, time in seconds, tokens, images, what was skipped.

        Raises:
            Stopped: If Ctrl-C or SIGTERM came to any rank; a checkpoint has been saved.
            UserError: If gradients stay undefined, too many pictures are unreadable, or memory or disk run out.
        """
        saved = self.checkpointer.load_latest()
        if saved is not None:
            self.spikes = SpikeWatch(saved.pop("recent_losses", ()))
            self.state |= saved
            console.print(f"going on from step {saved['step']:,} of {self.recipe.steps:,}")
        first, last = self.state["step"], self.recipe.steps
        loader = self.loader_from(first)
        batches = iter(loader)
        self.model.train()
        terminal = Terminal()
        with (
            self._log(first) as write,
            progress_bar(notes_below=True) as bar,
            _stop_signals(self._ask_to_stop),
            self._last_save(),
        ):
            task = bar.add_task("train", total=last, completed=first, note="")
            window = Window()
            for step in range(first, last):
                with out_of_memory_explained(loader, self.world, self._try_steps):
                    stop = self._step(step, batches, window)
                self.checkpointer.poll()
                bar.advance(task)
                self.state["step"] = done = step + 1
                scores = {} if stop else self._scores(done)
                if done % self.recipe.log_every == 0 or done == last or stop or scores:
                    line = self._line(window) | scores
                    write(line)
                    bar.update(task, note=terminal.note(line, last))
                    window = Window()
                if done % self.recipe.checkpoint_every == 0 or done == last or stop:
                    state = {**self.state, "recent_losses": list(self.spikes.losses)}
                    self.checkpointer.save(state, wait=bool(stop) or done == last)
                if stop and done < last:
                    raise Stopped(stop)
        return self.state

    def _step(self, step: int, batches: Iterator[TrainingBatch], window: Window) -> int:
        """Make one optimizer step.

        Returns:
            The number of the signal that asked some rank to stop, else 0.
        """
        began = time.perf_counter()
        group = [next(batches) for _ in range(self.micro_batches)]
        window.waited += time.perf_counter() - began
        count, tokens, images, flops, bad, interrupted, terminated = self.world.sums(
            [
                sum(batch["count"] for batch in group),
                sum(batch["tokens"] for batch in group),
                sum(len(batch["pixel_values"]) for batch in group),
                sum(self.compute.flops(batch) for batch in group) if self.compute else 0.0,
                self._report_bad_images(group),
                self._stop_signal == signal.SIGINT,
                self._stop_signal == signal.SIGTERM,
            ]
        )
        torch.manual_seed(hash((self.seed, step, self.world.rank)))
        set_learning_rate(self.optimizer, schedule(step, self.recipe))
        self.optimizer.zero_grad(set_to_none=True)
        step_losses = StepLosses()
        for number, batch in enumerate(group, start=step * self.micro_batches):
            step_losses.add(self.backward(batch, number, count))
        window.norm, window.norms = clip_gradients(self.model, self.recipe.clip_norm)
        self._apply(window.norm, step)
        loss = window.add_losses(self.world.sums(step_losses.values()))
        window.figures = step_losses.figures
        window.flops += flops
        self.state["loss_spikes"] += self.spikes.is_spike(loss, step + 1)
        self._count(window, time.perf_counter() - began, int(tokens), int(images), int(bad))
        return signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0

    def backward(self, batch: TrainingBatch, number: int, count: float) -> Losses:
        """Add a micro-batch's gradients.

        Args:
            batch: On any device.
            number: Within the run.
            count: Terms of the loss in the whole step, on all ranks.
        """
        with self._autocast():
            losses = self.loss(_to_device(batch, self.world.device), number)
        # Sharded gradients are averaged over the ranks: the factor turns that into the sum.
        total = losses.total * (self.world.size / max(1.0, count))
        if losses.mean is not None:
            total = total + losses.mean / self.micro_batches
        total.backward()
        return losses

    def _try_steps(self, batch: TrainingBatch) -> None:
        """Make two steps of two micro-batches: the second finds gradients, and the optimizer's state, in memory."""
        try:
            for _ in range(2):
                self.optimizer.zero_grad(set_to_none=True)
                for number in range(2):
                    self.backward(batch, number, batch["count"])
                self.optimizer.step()
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def _apply(self, norm: float, step: int) -> None:
        """Make the optimizer step, unless the gradients are infinite or undefined."""
        if math.isfinite(norm):
            self.optimizer.step()
            self._bad_steps_in_a_row = 0
            return
        self.state["bad_steps"] += 1
        self._bad_steps_in_a_row += 1
        console.print(f"[yellow]step {step + 1}: gradient norm is {norm}; the step is skipped[/]")
        if (row := self._bad_steps_in_a_row) >= self.recipe.max_bad_steps:
            raise UserError(
                f"the gradients of {row} steps in a row are infinite or undefined (step {step + 1}): lower "
                "train.learning_rate or use train.dtype: float32"
            )

    def _count(self, window: Window, seconds: float, tokens: int, images: int, bad: int) -> None:
        for counts in (self.state, vars(window)):
            counts["time"] += seconds
            counts["tokens"] += tokens
            counts["images"] += images
        self.state["bad_images"] += bad
        if self.state["bad_images"] > MAX_BAD_IMAGES:
            raise UserError(
                f"more than {MAX_BAD_IMAGES} pictures of the corpora can't be read: rebuild or clean the corpora"
            )

    def _report_bad_images(self, group: list[TrainingBatch]) -> int:
        sentences = [sentence for batch in group for sentence in batch["bad_images"]]
        for sentence in sentences:
            console.print(f"[yellow]left out: {sentence}[/]")
        return len(sentences)

    def _scores(self, done: int) -> dict[str, float]:
        return self.scoring.score(done) if self.scoring and done % self.scoring.every == 0 else {}

    def _line(self, window: Window) -> dict[str, Any]:
        """Return a line of the log; all ranks must ask."""
        world = self.world
        sums = world.sums([float(value) for value in window.figures.values()])
        return {
            "step": self.state["step"],
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            **window.line(self.compute.peak * world.size if self.compute else 0.0),
            **{name: total / world.size for name, total in zip(window.figures, sums, strict=True)},
            **{key: value for key, value in self.state.items() if key != "step"},
        }

    def _log(self, step: int) -> AbstractContextManager[Callable[[dict[str, Any]], None]]:
        """Open the log; only the first rank writes."""
        if not self.world.is_first:
            return nullcontext(lambda line: None)
        return open_log(self.directory, self.recipe.trackers, step)

    @contextmanager
    def _last_save(self) -> Iterator[None]:
        """Complete the checkpoint under way also if training fails; other ranks may be gone then, so alone only."""
        try:
            yield
        finally:
            if self.world.size == 1:
                self.checkpointer.finish()

    def _ask_to_stop(self, signal_number: int) -> None:
        self._stop_signal = signal_number
        console.print("stopping after this step")

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, self.autocast) if self.autocast else nullcontext()


def _to_device(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    if device.type == "cpu":
        return batch
    moved = {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    return moved  # type: ignore[return-value]  # the same keys, in a plain dict


@contextmanager
def _stop_signals(on_stop: Callable[[int], None]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a request to stop; a second Ctrl-C interrupts at once."""

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        on_stop(number)

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
