"""The training loop: takes batches, makes steps, writes the log and checkpoints.

    for each step:  micro-batches --forward, backward--> gradients --clip--> optimizer step --> log, scores, checkpoint

The loss is normalised over all terms of the whole step (target tokens, or pictures) on all ranks, so gradient
accumulation and data parallelism give the gradient of the whole batch. The random numbers of a step are seeded by its
number.

A step reads nothing back from the device. Its losses and norms are read together with those of other steps: where a
line of the log or a checkpoint is due, and at least every `train.max_bad_steps` steps.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mm1.errors import EveryRankError, Stopped, UserError
from mm1.plan.loader import TrainingBatch
from mm1.progress import console, progress_bar, terminal
from mm1.recipe import TrainRecipe
from mm1.train.changes import latest_step
from mm1.train.checkpoint import Checkpointer
from mm1.train.copies import StepBatches, step_batches, to_device
from mm1.train.garbage import garbage_collection
from mm1.train.memory import Attempts, explain_out_of_memory
from mm1.train.objective import Losses
from mm1.train.optimizer import clip_gradients, schedule, set_learning_rate, step_if_finite
from mm1.train.parallel import World
from mm1.train.profiling import profiling
from mm1.train.sharding import reduce_replicas
from mm1.train.telemetry import SpikeWatch, StepLosses, Terminal, Unread, Window
from mm1.train.tracking import NO_SAMPLES, Samples, Write, open_log
from mm1.train.unreadable import UnreadableWatch

_SECONDS_TO_SAVE = 20.0
"""How long a save in progress may take to end once a rank has failed."""


@dataclass(frozen=True)
class Compute:
    """The figures that MFU is computed from.

    Attributes:
        flops: Computes the FLOPs of a micro-batch, forward and backward.
        peak: Peak FLOP/s of one device.
        peak_from: The origin of the peak, in a few words.
    """

    flops: Callable[[Any], float]
    peak: float
    peak_from: str


@dataclass(frozen=True)
class Scoring:
    """Scoring during training.

    Attributes:
        every: Steps between two scorings.
        score: Takes the number of completed steps and returns figures for the log by name, and samples for trackers.
            All ranks call it. It doesn't change the model or the state of the random numbers.
    """

    every: int
    score: Callable[[int], tuple[dict[str, float], Samples]]


class Trainer:
    """Trains a model over a plan; resumes from the run directory's latest checkpoint.

    Args:
        model: The model on its device, sharded if there are several ranks.
        optimizer: The optimizer; its groups have `peak_lr`.
        loader_from: Returns this rank's micro-batches, starting at a step.
        loss: Runs the model on a micro-batch; the second argument is the micro-batch's number within the run.
        recipe: Gives steps, schedule, clipping, and how often to log and save.
        directory: The run's directory.
        world: The ranks that train together.
        micro_batches: Micro-batches per step on one rank.
        autocast: Precision of matrix products: `torch.bfloat16`, or None for the precision of the parameters.
        seed: Seed of the random numbers in the model's forward pass (dropout).
        compute: The figures for FLOP/s and MFU in the log; None: the log has neither.
        scoring: Scoring during training; None: there is none.
        micro_batch_fixed_by: Why the size of micro-batches affects the results; None: it doesn't.
        check: Called before the first step, when the weights are there; raises a `UserError` if training makes no
            sense. None: there is nothing to check.
        saved_only: See `Checkpointer`.
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
        micro_batch_fixed_by: str | None = None,
        check: Callable[[], None] | None = None,
        saved_only: Container[str] | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.loader_from, self.micro_batches = loader_from, micro_batches
        self.recipe, self.directory, self.world, self.autocast = recipe, directory, world, autocast
        self.seed, self.compute, self.scoring = seed, compute, scoring
        self.micro_batch_fixed_by, self.check = micro_batch_fixed_by, check
        self.checkpointer = Checkpointer(
            directory / "checkpoints", model, optimizer, world, recipe.keep_checkpoints, recipe.keep_every, saved_only
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
        self.unreadable = UnreadableWatch()
        self._unread = Unread()
        self._weights_whole = True
        self._bad_steps_in_a_row = 0
        self._stop_signal = 0

    def run(self) -> dict[str, Any]:
        """Train to the last step.

        Returns:
            The final state: step, time in seconds, tokens, images, and counts of skipped pictures and steps.

        Raises:
            Stopped: If any rank received Ctrl-C or SIGTERM; a checkpoint has been saved.
            UserError: If gradients stay undefined, too many pictures are unreadable, or memory or disk run out.
        """
        saved = self.checkpointer.load_latest()
        if saved is not None:
            self.spikes = SpikeWatch(saved.pop("recent_losses", ()))
            self.unreadable = UnreadableWatch(saved.pop("recent_pictures", ()))
            self.state |= saved
            console.print(f"resuming from step {saved['step']:,} of {self.recipe.steps:,}")
        if self.check:
            self.check()
        first, last = self.state["step"], self.recipe.steps
        loader = self.loader_from(first)
        batches = step_batches(iter(loader), self.micro_batches, self.world.device)
        self.model.train()
        shown = Terminal()
        with (
            self._log(first) as write,
            progress_bar(notes_below=True) as bar,
            _stop_signals(self._ask_to_stop),
            self._last_save(),
            garbage_collection() as collect_garbage,
            profiling(self.recipe.profile, self.directory, self.world) as profiled,
        ):
            task = bar.add_task("train", total=last, completed=first, note="")
            window = Window()
            profiled(first)
            for step in range(first, last):
                attempts = Attempts(partial(self._rescue, window, write), self._try_steps, self.micro_batch_fixed_by)
                with explain_out_of_memory(loader, self.world, attempts):
                    stop = self._step(step, batches, window)
                profiled(step + 1)
                self.checkpointer.poll()
                bar.advance(task)
                self.state["step"] = done = step + 1
                self.world.step_done(done)
                end = done == last or bool(stop)
                scored = not stop and self.scoring is not None and done % self.scoring.every == 0
                logged = end or scored or done % self.recipe.log_every == 0
                saved_now = end or done % self.recipe.checkpoint_every == 0
                if logged or saved_now or len(self._unread) >= self.recipe.max_bad_steps:
                    self._read(window)
                if logged:
                    scores, samples = self.scoring.score(done) if self.scoring and scored else ({}, NO_SAMPLES)
                    line = self._line(window) | scores
                    write(line, samples)
                    bar.update(task, note=shown.note(line, last))
                    window = Window()
                if saved_now:
                    self._save(wait=end)
                collect_garbage(done, scored)
                if stop and done < last:
                    raise Stopped(stop)
        return self.state

    def _step(self, step: int, batches: StepBatches, window: Window) -> int:
        """Make one optimizer step.

        Returns:
            The number of the signal that asked any rank to stop, else 0.
        """
        began = time.perf_counter()
        group = batches.take()
        window.waited += time.perf_counter() - began
        count, tokens, images, flops, bad, interrupted, terminated = self.world.sums(
            [
                sum(batch["count"] for batch in group),
                sum(batch["tokens"] for batch in group),
                sum(batch["images"] for batch in group),
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
        for number, batch in enumerate(batches.on_device(group), start=step * self.micro_batches):
            reduce_replicas(self.model, now=(number + 1) % self.micro_batches == 0)
            step_losses.add(self.backward(batch, number, count))
        norm, norms = clip_gradients(self.model, self.recipe.clip_norm)
        self._apply(norm, step)
        self._unread.add(step_losses, norm, norms)
        window.flops += flops
        waits = time.perf_counter()
        batches.look_ahead()
        window.waited += time.perf_counter() - waits
        self._count(window, time.perf_counter() - began, int(tokens), int(images), int(bad))
        return signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0

    def backward(self, batch: TrainingBatch, number: int, count: float) -> Losses:
        """Add a micro-batch's gradients.

        Args:
            batch: The micro-batch, on any device.
            number: Its number within the run.
            count: Terms of the loss in the whole step, on all ranks.
        """
        with self._autocast():
            losses = self.loss(to_device(batch, self.world.device), number)
        # Sharding averages gradients over the ranks; the factor makes it a sum.
        total = losses.total * (self.world.size / max(1.0, count))
        if losses.mean is not None:
            total = total + losses.mean / self.micro_batches
        total.backward()
        return losses

    def _save(self, *, wait: bool) -> None:
        recent = {"recent_losses": list(self.spikes.losses), "recent_pictures": list(self.unreadable.counts)}
        self.checkpointer.save({**self.state, **recent}, wait=wait)

    def _rescue(self, window: Window, write: Write) -> int:
        """Save the steps done before the one that ran out of memory; return the step that the run resumes from."""
        self.optimizer.zero_grad(set_to_none=True)
        # Without memory for the copy or room on the disk, the run resumes from the checkpoint before.
        with suppress(UserError, RuntimeError, MemoryError):
            self.checkpointer.finish()
            if self._weights_whole and self.state["step"] > latest_step(self.directory):
                self._read(window)
                self._save(wait=True)
                if window.time:
                    write(self._line(window))
        return latest_step(self.directory)

    def _try_steps(self, batch: TrainingBatch) -> None:
        """Make two steps of two micro-batches; in the second, gradients and the optimizer's state are in memory."""
        try:
            for _ in range(2):
                self.optimizer.zero_grad(set_to_none=True)
                for number in range(2):
                    self.backward(batch, number, batch["count"])
                self.optimizer.step()
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def _apply(self, norm: torch.Tensor, step: int) -> None:
        """Make the optimizer step unless the gradients are infinite or undefined."""
        self._weights_whole = False  # until every one of them has been changed
        step_if_finite(self.optimizer, norm)
        self._weights_whole = True

    def _read(self, window: Window) -> None:
        """Read the figures of the steps since the last read; all ranks must call this.

        Raises:
            UserError: If too many steps in a row had infinite or undefined gradients.
        """
        if not len(self._unread):
            return
        began = time.perf_counter()
        steps, window.norms, window.figures = self._unread.read(self.world)
        for number, read in enumerate(steps, start=self.state["step"] - len(steps) + 1):
            window.norm = read.norm
            window.add_losses(read.losses)
            self.state["loss_spikes"] += self.spikes.is_spike(read.loss, number)
            self._judge(number, read.norm)
        seconds = time.perf_counter() - began
        for counts in (self.state, vars(window)):
            counts["time"] += seconds  # the wait for the device is a part of the steps

    def _judge(self, number: int, norm: float) -> None:
        """Count a step whose gradients are infinite or undefined; raise an error after too many in a row."""
        if math.isfinite(norm):
            self._bad_steps_in_a_row = 0
            return
        self.state["bad_steps"] += 1
        self._bad_steps_in_a_row += 1
        console.print(f"step {number}: gradient norm is {norm}; the step is skipped", style="yellow")
        if (row := self._bad_steps_in_a_row) >= self.recipe.max_bad_steps:
            raise EveryRankError(
                f"step {number}: the gradients of {row} steps in a row are infinite or undefined: lower "
                "train.learning_rate or set train.dtype: float32"
            )

    def _count(self, window: Window, seconds: float, tokens: int, images: int, bad: int) -> None:
        for counts in (self.state, vars(window)):
            counts["time"] += seconds
            counts["tokens"] += tokens
            counts["images"] += images
        self.state["bad_images"] += bad
        self.unreadable.add(images + bad, bad)

    def _report_bad_images(self, group: list[TrainingBatch]) -> int:
        sentences = [sentence for batch in group for sentence in batch["bad_images"]]
        notes = console if self.world.is_first else terminal(stderr=True)  # the other ranks' console is quiet
        for sentence in sentences:
            notes.print(f"left out: {sentence}", style="yellow")
        return len(sentences)

    def _line(self, window: Window) -> dict[str, Any]:
        """Return a line of the log, of steps that have been read."""
        return {
            "step": self.state["step"],
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            **window.line(self.compute.peak * self.world.size if self.compute else 0.0),
            **{key: value for key, value in self.state.items() if key != "step"},
        }

    def _log(self, step: int) -> AbstractContextManager[Write]:
        """Open the log; only the first rank writes."""
        if not self.world.is_first:
            return nullcontext(lambda line, samples=NO_SAMPLES: None)
        return open_log(self.directory, self.recipe.trackers, step)

    @contextmanager
    def _last_save(self) -> Iterator[None]:
        """Finish the save in progress even if training fails, on this rank or on another, which may have ended."""
        if self.world.watch is not None:
            self.world.watch.at_end = partial(self.checkpointer.settle, _SECONDS_TO_SAVE)
        try:
            yield
        finally:
            if self.world.size == 1:
                self.checkpointer.finish()
            else:
                self.checkpointer.settle(_SECONDS_TO_SAVE)
            self.world.wait_long()

    def _ask_to_stop(self, signal_number: int) -> None:
        self._stop_signal = signal_number
        console.print("stopping after this step and saving a checkpoint")

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, self.autocast) if self.autocast else nullcontext()


@contextmanager
def _stop_signals(on_stop: Callable[[int], None]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into requests to stop; a second Ctrl-C interrupts immediately."""

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        on_stop(number)

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
