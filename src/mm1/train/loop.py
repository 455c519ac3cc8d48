"""The training loop: batches in, steps made, curves and checkpoints out.

    for each step:  micro-batches --forward, backward--> gradients --clip--> optimizer step --> metrics.jsonl

The loss is normalised over the learned tokens of the whole step, so that gradient accumulation gives the
large batch's gradient.
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

from mm1.data.loader import Batch
from mm1.document import KINDS
from mm1.errors import Stopped, UserError
from mm1.progress import console, progress_bar
from mm1.recipe import TrainRecipe
from mm1.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from mm1.train.objective import Losses
from mm1.train.optimizer import clip_gradients, schedule, set_learning_rate

MAX_BAD_STEPS = 10
"""Consecutive steps with infinite or undefined gradients after which training stops."""
MAX_BAD_IMAGES = 100
"""Unreadable pictures after which training stops."""


class Trainer:
    """Trains a model over a plan; goes on from the run directory's last checkpoint.

    Args:
        model: On its device.
        optimizer: Over its parameters, groups with `peak_lr`.
        loader_from: Gives the micro-batches from a step on.
        loss: Runs the model on a micro-batch.
        recipe: Steps, schedule, clipping, how often to log and save.
        directory: The run's.
        micro_batches: How many micro-batches make a step.
        autocast: `torch.bfloat16` to run matrix products in it, None for full precision.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loader_from: Callable[[int], DataLoader[Any]],
        loss: Callable[[Batch], Losses],
        recipe: TrainRecipe,
        directory: Path,
        *,
        micro_batches: int,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.loader_from, self.micro_batches = loader_from, micro_batches
        self.recipe, self.directory, self.autocast = recipe, directory, autocast
        self.device = next(model.parameters()).device
        self.state: dict[str, Any] = {
            "step": 0,
            "time": 0.0,
            "tokens": 0,
            "images": 0,
            "bad_images": 0,
            "bad_steps": 0,
        }
        self._bad_steps_in_a_row = 0
        self._stop = False

    def run(self) -> dict[str, Any]:
        """Train to the last step.

        Returns:
            The final state: step, time in seconds, tokens, images, what was skipped.

        Raises:
            Stopped: If Ctrl-C or SIGTERM came; a checkpoint has been saved.
            UserError: If gradients stay undefined, too many pictures are unreadable, or the disk is full.
        """
        self._resume()
        log = self.directory / "metrics.jsonl"
        _drop_lines_after(log, self.state["step"])
        first, last = self.state["step"], self.recipe.steps
        batches = iter(self.loader_from(first))
        self.model.train()
        with log.open("a") as lines, progress_bar() as bar, _stop_signals(self._ask_to_stop):
            task = bar.add_task("train", total=last, completed=first, note="")
            window = _Window()
            for step in range(first, last):
                metrics = self._step(step, batches, window)
                bar.advance(task)
                self.state["step"] = step + 1
                if (step + 1) % self.recipe.log_every == 0 or step + 1 == last:
                    line = {"step": step + 1, **metrics, **window.rates(), **self._counts()}
                    lines.write(json.dumps(line) + "\n")
                    lines.flush()
                    bar.update(task, note=_note(line))
                    window = _Window()
                if (step + 1) % self.recipe.checkpoint_every == 0 or step + 1 == last or self._stop:
                    self._save()
                if self._stop and step + 1 < last:
                    raise Stopped
        return self.state

    def _step(self, step: int, batches: Iterator[Batch], window: _Window) -> dict[str, Any]:
        began = time.perf_counter()
        group = [next(batches) for _ in range(self.micro_batches)]
        window.waited += time.perf_counter() - began
        learned = max(1, sum(len(batch["target_ids"]) for batch in group))
        set_learning_rate(self.optimizer, schedule(step, self.recipe))
        self.optimizer.zero_grad(set_to_none=True)
        for batch in group:
            self._count_bad_images(batch)
            window.add_batch(batch)
            with self._autocast():
                losses = self.loss(_to_device(batch, self.device))
            (losses.total / learned).backward()
            window.add_losses(losses)
        norm = clip_gradients(self.model.parameters(), self.recipe.clip_norm)
        self._apply(norm, step)
        self.state["tokens"] += sum(batch["tokens"] for batch in group)
        self.state["images"] += sum(len(batch["pixel_values"]) for batch in group)
        taken = time.perf_counter() - began
        self.state["time"] += taken
        window.seconds += taken
        return {"grad_norm": norm, "learning_rate": self.optimizer.param_groups[-1]["lr"]}

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

    def _count_bad_images(self, batch: Batch) -> None:
        for sentence in batch["bad_images"]:
            self.state["bad_images"] += 1
            console.print(f"[yellow]left out: {sentence}[/]")
        if self.state["bad_images"] > MAX_BAD_IMAGES:
            raise UserError(
                f"more than {MAX_BAD_IMAGES} pictures of the corpora can't be read: rebuild or clean the corpora"
            )

    def _counts(self) -> dict[str, Any]:
        return {key: value for key, value in self.state.items() if key != "step"}

    def _resume(self) -> None:
        saved = checkpoints(self.directory / "checkpoints")
        if saved:
            self.state = load_checkpoint(saved[-1], self.model, self.optimizer)
            console.print(f"going on from step {self.state['step']:,} of {self.recipe.steps:,}")

    def _save(self) -> None:
        save_checkpoint(
            self.directory / "checkpoints",
            self.model,
            self.optimizer,
            self.state,
            self.recipe.keep_checkpoints,
        )

    def _ask_to_stop(self) -> None:
        self._stop = True
        console.print("stopping after this step; the same command goes on from here")

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()


class _Window:
    """Sums between two lines of metrics.jsonl."""

    def __init__(self) -> None:
        self.seconds = self.waited = 0.0
        self.tokens = self.images = 0
        self.loss_sums = torch.zeros(len(KINDS))
        self.loss_tokens = torch.zeros(len(KINDS))

    def add_batch(self, batch: Batch) -> None:
        self.tokens += batch["tokens"]
        self.images += len(batch["pixel_values"])

    def add_losses(self, losses: Losses) -> None:
        self.loss_sums = self.loss_sums.to(losses.by_kind.device) + losses.by_kind
        self.loss_tokens = self.loss_tokens.to(losses.by_kind.device) + losses.tokens_by_kind

    def rates(self) -> dict[str, Any]:
        """Return mean losses (over all learned tokens and per kind), speed and share of time lost on data."""
        sums, tokens = self.loss_sums.tolist(), self.loss_tokens.tolist()
        per_kind = {f"loss/{k}": s / n for k, s, n in zip(KINDS, sums, tokens, strict=True) if n}
        return {
            "loss": sum(sums) / max(1.0, sum(tokens)),
            **per_kind,
            "tokens_per_second": self.tokens / self.seconds,
            "images_per_second": self.images / self.seconds,
            "data_wait": self.waited / self.seconds,
        }


def _note(line: dict[str, Any]) -> str:
    losses = " ".join(f"{key.removeprefix('loss/')} {line[key]:.2f}" for key in line if key.startswith("loss/"))
    return f"loss {losses} · {line['tokens_per_second']:,.0f} tokens/s · data wait {line['data_wait']:.0%}"


def _to_device(batch: Batch, device: torch.device) -> Batch:
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
def _stop_signals(on_stop: Callable[[], None]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a request to stop; a second Ctrl-C interrupts at once."""

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        on_stop()

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
