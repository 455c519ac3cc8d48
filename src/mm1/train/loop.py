"""The training loop: batches in, steps made, curves and checkpoints out.

    for each step:  micro-batches --forward, backward--> gradients --clip--> optimizer step --> metrics.jsonl

The loss is normalised over all terms of the whole step (learned tokens, or pictures), on all ranks, so that
gradient accumulation and data parallelism give the large batch's gradient. Whatever is random in a step is seeded
by its number.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mm1.data.loader import TrainingBatch
from mm1.document import KINDS
from mm1.errors import Stopped, UserError
from mm1.progress import console, progress_bar
from mm1.recipe import TrainRecipe
from mm1.train.checkpoint import Checkpointer
from mm1.train.objective import Losses
from mm1.train.optimizer import clip_gradients, schedule, set_learning_rate
from mm1.train.parallel import World

MAX_BAD_STEPS = 10
"""Consecutive steps with infinite or undefined gradients after which training stops."""
MAX_BAD_IMAGES = 100
"""Unreadable pictures after which training stops."""


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
    ) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.loader_from, self.micro_batches = loader_from, micro_batches
        self.recipe, self.directory, self.world, self.autocast = recipe, directory, world, autocast
        self.seed = seed
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
        }
        self._bad_steps_in_a_row = 0
        self._stop_signal = 0

    def run(self) -> dict[str, Any]:
        """Train to the last step.

        Returns:
            The final state: step, time in seconds, tokens, images, what was skipped.

        Raises:
            Stopped: If Ctrl-C or SIGTERM came to any rank; a checkpoint has been saved.
            UserError: If gradients stay undefined, too many pictures are unreadable, or the disk is full.
        """
        saved = self.checkpointer.load_latest()
        if saved is not None:
            self.state = saved
            console.print(f"going on from step {saved['step']:,} of {self.recipe.steps:,}")
        first, last = self.state["step"], self.recipe.steps
        batches = iter(self.loader_from(first))
        self.model.train()
        with self._log(first) as write, progress_bar() as bar, _stop_signals(self._ask_to_stop), self._last_save():
            task = bar.add_task("train", total=last, completed=first, note="")
            window = _Window()
            for step in range(first, last):
                stop = self._step(step, batches, window)
                self.checkpointer.poll()
                bar.advance(task)
                self.state["step"] = done = step + 1
                if done % self.recipe.log_every == 0 or done == last or stop:
                    line = self._line(window)
                    write(line)
                    bar.update(task, note=_note(line))
                    window = _Window()
                if done % self.recipe.checkpoint_every == 0 or done == last or stop:
                    self.checkpointer.save(self.state, wait=bool(stop) or done == last)
                if stop and done < last:
                    raise Stopped(stop)
        return self.state

    def _step(self, step: int, batches: Iterator[TrainingBatch], window: _Window) -> int:
        """Make one optimizer step.

        Returns:
            The number of the signal that asked some rank to stop, else 0.
        """
        began = time.perf_counter()
        group = [next(batches) for _ in range(self.micro_batches)]
        window.waited += time.perf_counter() - began
        count, tokens, images, bad, interrupted, terminated = self.world.sums(
            [
                sum(batch["count"] for batch in group),
                sum(batch["tokens"] for batch in group),
                sum(len(batch["pixel_values"]) for batch in group),
                self._report_bad_images(group),
                self._stop_signal == signal.SIGINT,
                self._stop_signal == signal.SIGTERM,
            ]
        )
        torch.manual_seed(hash((self.seed, step, self.world.rank)))
        set_learning_rate(self.optimizer, schedule(step, self.recipe))
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(group, start=step * self.micro_batches):
            with self._autocast():
                losses = self.loss(_to_device(batch, self.world.device), number)
            # Sharded gradients are averaged over the ranks: the factor turns that into the sum.
            total = losses.total * (self.world.size / max(1.0, count))
            if losses.mean is not None:
                total = total + losses.mean / self.micro_batches
            total.backward()
            window.add_losses(losses)
        window.norm, window.norms = clip_gradients(self.model, self.recipe.clip_norm)
        self._apply(window.norm, step)
        self._count(window, time.perf_counter() - began, int(tokens), int(images), int(bad))
        return signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0

    def _apply(self, norm: float, step: int) -> None:
        """Make the optimizer step, unless the gradients are infinite or undefined."""
        if math.isfinite(norm):
            self.optimizer.step()
            self._bad_steps_in_a_row = 0
            return
        self.state["bad_steps"] += 1
        self._bad_steps_in_a_row += 1
        console.print(f"[yellow]step {step + 1}: gradient norm is {norm}; the step is skipped[/]")
        if self._bad_steps_in_a_row >= MAX_BAD_STEPS:
            raise UserError(
                f"the gradients of {MAX_BAD_STEPS} steps in a row are infinite or undefined (step {step + 1}): lower "
                "train.learning_rate or use train.dtype: float32"
            )

    def _count(self, window: _Window, seconds: float, tokens: int, images: int, bad: int) -> None:
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

    def _line(self, window: _Window) -> dict[str, Any]:
        """Return a line of metrics.jsonl; all ranks must ask."""
        kinds = len(KINDS)
        sums = self.world.sums(
            [*window.loss_sums.tolist(), *window.loss_counts.tolist(), *map(float, window.figures.values())]
        )
        figures = zip(window.figures, (total / self.world.size for total in sums[2 * kinds :]), strict=True)
        counts = {key: value for key, value in self.state.items() if key != "step"}
        return {
            "step": self.state["step"],
            **_losses(sums[:kinds], sums[kinds : 2 * kinds]),
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "grad_norm": window.norm,
            **{f"grad_norm/{part}": norm for part, norm in window.norms.items()},
            **dict(figures),
            "tokens_per_second": window.tokens / window.time,
            "images_per_second": window.images / window.time,
            "data_wait": window.waited / window.time,
            **counts,
        }

    @contextmanager
    def _log(self, step: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Open metrics.jsonl after the line of a step; only the first rank writes."""
        if not self.world.first:
            yield lambda line: None
            return
        log = self.directory / "metrics.jsonl"
        _drop_lines_after(log, step)
        with log.open("a") as file:

            def write(line: dict[str, Any]) -> None:
                file.write(json.dumps(line) + "\n")
                file.flush()

            yield write

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


class _Window:
    """What happened between two lines of metrics.jsonl: losses of this rank, counts of all, norms of the last step."""

    def __init__(self) -> None:
        self.time = self.waited = 0.0
        self.tokens = self.images = 0
        self.loss_sums = torch.zeros(len(KINDS))
        self.loss_counts = torch.zeros(len(KINDS))
        self.norm = 0.0
        self.norms: dict[str, float] = {}
        self.figures: dict[str, torch.Tensor] = {}

    def add_losses(self, losses: Losses) -> None:
        self.loss_sums = self.loss_sums.to(losses.by_kind.device) + losses.by_kind
        self.loss_counts = self.loss_counts.to(losses.by_kind.device) + losses.counts_by_kind
        self.figures = losses.figures


def _losses(sums: list[float], counts: list[float]) -> dict[str, float]:
    """Return the mean loss over all terms, and per kind."""
    per_kind = {f"loss/{kind}": s / n for kind, s, n in zip(KINDS, sums, counts, strict=True) if n}
    return {"loss": sum(sums) / max(1.0, sum(counts)), **per_kind}


def _note(line: dict[str, Any]) -> str:
    losses = " ".join(f"{key.removeprefix('loss/')} {line[key]:.2f}" for key in line if key.startswith("loss/"))
    return f"loss {losses} · {line['tokens_per_second']:,.0f} tokens/s · data wait {line['data_wait']:.0%}"


def _to_device(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    if device.type == "cpu":
        return batch
    moved = {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    return moved  # type: ignore[return-value]


def _drop_lines_after(log: Path, step: int) -> None:
    """Forget what was logged after the checkpoint that training goes on from (and a half-written line)."""
    if not log.is_file():
        return
    kept = []
    for line in log.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue
    partial = log.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.rename(log)


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
