"""The figures of a training: lines of the log, the bar in the terminal, loss spikes.

docs/reference/training-log.md explains every key of a line.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mm1.document import KINDS
from mm1.progress import console
from mm1.train.objective import LOAD, RANK_LOAD, Losses
from mm1.train.parallel import World

SPIKE_DEVIATIONS = 7
"""A loss more than this many standard deviations above the mean is a spike (OLMo 2's spike score, arXiv 2501.00656)."""
SPIKE_WINDOW = 1000
"""Steps over which mean and deviation are computed (same source)."""
SPIKE_MINIMUM = 100
"""Steps before the first one that can be a spike (as in LLM Foundry's detector)."""
PRINT_SECONDS = 30
"""Least seconds between two printed lines if the output is not a terminal."""


@dataclass
class StepLosses:
    """The losses of one rank's micro-batches in a step; they stay on its device.

    Attributes:
        sums: (2 * len(KINDS),) sums and counts by kind, of the micro-batches so far.
        figures: Figures of the micro-batches so far, added up.
        number: Number of these micro-batches.
    """

    sums: torch.Tensor | None = None
    figures: dict[str, torch.Tensor] = field(default_factory=dict)
    number: int = 0

    def add(self, losses: Losses) -> None:
        """Add a micro-batch."""
        sums = torch.cat([losses.by_kind, losses.counts_by_kind])
        self.sums = sums if self.sums is None else self.sums + sums
        own = {name: figure.float() for name, figure in losses.figures.items()}
        self.figures = {name: figure + self.figures.get(name, 0.0) for name, figure in own.items()}
        self.number += 1


@dataclass(frozen=True)
class StepRead:
    """What a step's figures on the device were.

    Attributes:
        losses: Sums of the loss of all kinds, then the counts of all kinds, over all ranks.
        norm: Gradient norm before clipping.
    """

    losses: list[float]
    norm: float

    @property
    def loss(self) -> float:
        """Mean over the step's terms."""
        return sum(self.losses[: len(KINDS)]) / max(1.0, sum(self.losses[len(KINDS) :]))


@dataclass
class Unread:
    """The figures of steps that are still on the device; one copy reads them all.

    Attributes:
        steps: Per step (2 * len(KINDS) + 1,): sums and counts of this rank's losses by kind, and the gradient norm.
        norms: Gradient norm by part of the model, of the last step.
        figures: Means over this rank's micro-batches of the last step.
    """

    steps: list[torch.Tensor] = field(default_factory=list)
    norms: dict[str, torch.Tensor] = field(default_factory=dict)
    figures: dict[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, losses: StepLosses, norm: torch.Tensor, norms: dict[str, torch.Tensor]) -> None:
        """Add a step."""
        assert losses.sums is not None
        self.steps.append(torch.cat([losses.sums, norm.float()[None]]))
        self.norms = norms
        self.figures = {name: figure / losses.number for name, figure in losses.figures.items()}

    def read(self, world: World) -> tuple[list[StepRead], dict[str, float], dict[str, float]]:
        """Wait for the device; return the steps, the norms, and the means of the figures over the ranks.

        All ranks must call this. Nothing is left unread.
        """
        last = [*self.norms.values(), *self.figures.values()]
        device = self.steps[0].device
        scalars = [value.detach().to(device, torch.float32, non_blocking=True).flatten() for value in last]
        values = torch.cat([*self.steps, *scalars]).tolist()
        width, rows = len(self.steps[0]), len(self.steps)
        steps = [values[row * width : (row + 1) * width] for row in range(rows)]
        norms = dict(zip(self.norms, values[rows * width :], strict=False))
        figures = values[rows * width + len(norms) :]
        summed = world.sums([*(value for step in steps for value in step[:-1]), *figures])
        read = [StepRead(summed[row * (width - 1) : (row + 1) * (width - 1)], steps[row][-1]) for row in range(rows)]
        totals = summed[rows * (width - 1) :]
        means = _named(self.figures, np.array(totals) / world.size)
        self.steps, self.norms, self.figures = [], {}, {}
        return read, norms, means


def _named(figures: Mapping[str, torch.Tensor], values: np.ndarray) -> dict[str, float]:
    """Return the values of figures, which lie one after the other, by the names of the log."""
    named: dict[str, float] = {}
    end = 0
    for name, figure in figures.items():
        own, end = values[end : end + figure.numel()], end + figure.numel()
        if name == LOAD:
            table = own.reshape(figure.shape)
            named["router/fullest_expert"] = float(table.max()) * table.shape[1]
            named["router/largest_load"], named["router/smallest_load"] = float(table.max()), float(table.min())
            named |= {f"{LOAD}/{expert}": float(load) for expert, load in enumerate(table.mean(0))}
        elif name == RANK_LOAD:
            named["router/fullest_rank"] = float(own.max()) * figure.shape[1]
        else:
            named[name] = float(own[0])
    return named


@dataclass
class Window:
    """The figures between two lines of the log, over all ranks.

    Attributes:
        time: Seconds inside steps.
        waited: Seconds of `time` that this rank waited for batches.
        tokens: Tokens without padding.
        images: Images without padding.
        flops: The model's FLOPs in forward and backward passes.
        norm: Gradient norm of the last step, before clipping.
        norms: The same by part of the model.
        figures: Means over the micro-batches of the last step, on all ranks.
    """

    time: float = 0.0
    waited: float = 0.0
    tokens: int = 0
    images: int = 0
    flops: float = 0.0
    norm: float = 0.0
    norms: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    loss_sums: list[float] = field(default_factory=lambda: [0.0] * len(KINDS))
    loss_counts: list[float] = field(default_factory=lambda: [0.0] * len(KINDS))

    def add_losses(self, values: Sequence[float]) -> None:
        """Add a step's losses: sums of all kinds, then counts of all kinds, over the ranks."""
        sums, counts = values[: len(KINDS)], values[len(KINDS) :]
        self.loss_sums = [a + b for a, b in zip(self.loss_sums, sums, strict=True)]
        self.loss_counts = [a + b for a, b in zip(self.loss_counts, counts, strict=True)]

    def line(self, peak_flops: float) -> dict[str, float]:
        """Return the figures of a line of the log.

        Args:
            peak_flops: Peak FLOP/s of all devices together; unused if `flops` is 0.
        """
        pairs = zip(KINDS, self.loss_sums, self.loss_counts, strict=True)
        line = {
            "loss": sum(self.loss_sums) / max(1.0, sum(self.loss_counts)),
            **{f"loss/{kind}": total / count for kind, total, count in pairs if count},
            "grad_norm": self.norm,
            **{f"grad_norm/{part}": norm for part, norm in self.norms.items()},
            "tokens_per_second": self.tokens / self.time,
            "images_per_second": self.images / self.time,
            "data_wait": self.waited / self.time,
        }
        if self.flops:
            line["flops_per_second"] = self.flops / self.time
            line["mfu"] = line["flops_per_second"] / peak_flops
        return line | self.figures


class SpikeWatch:
    """Finds loss spikes.

    A step's loss is a spike if it is more than `SPIKE_DEVIATIONS` standard deviations above the mean of the last
    `SPIKE_WINDOW` steps.

    Args:
        losses: Losses of the previous steps, the oldest first.
    """

    def __init__(self, losses: Sequence[float] = ()) -> None:
        self.losses = deque(losses, maxlen=SPIKE_WINDOW)
        self._inside = False

    def is_spike(self, loss: float, step: int) -> bool:
        """Record a step's loss and return whether it is a spike; print the first of several spikes in a row.

        Args:
            loss: Mean over the step's terms; a value that isn't finite is no spike and isn't recorded.
            step: Counted from 1.
        """
        if not math.isfinite(loss):
            return False
        spike = False
        if len(self.losses) >= SPIKE_MINIMUM:
            mean, deviation = np.mean(self.losses), np.std(self.losses)
            spike = bool(loss > mean + SPIKE_DEVIATIONS * deviation)
            if spike and not self._inside:
                console.print(
                    f"step {step:,}: loss spike: {loss:.2f}, after {len(self.losses):,} steps with a loss of "
                    f"{mean:.2f} ± {deviation:.2f} (a spike is more than {SPIKE_DEVIATIONS} deviations above)",
                    style="yellow",
                )
        self._inside = spike
        self.losses.append(loss)
        return spike


class Terminal:
    """Shows the progress of training: below the bar in a terminal, else as a line every `PRINT_SECONDS`."""

    def __init__(self) -> None:
        self._printed = -math.inf

    def note(self, line: dict[str, Any], last_step: int) -> str:
        """Return a short form of a line of the log; print it if the output is not a terminal and it is time."""
        losses = [f"{key.removeprefix('loss/')} {line[key]:.2f}" for key in line if key.startswith("loss/")]
        parts = [
            f"loss {' '.join(losses) or format(line['loss'], '.2f')}",
            f"{line['tokens_per_second']:,.0f} tokens/s",
            f"{line['images_per_second']:,.0f} images/s",
            *([f"MFU {line['mfu']:.1%}"] if "mfu" in line else []),
            f"data wait {line['data_wait']:.0%}",
        ]
        note = " · ".join(parts)
        if not console.is_terminal and time.monotonic() - self._printed > PRINT_SECONDS:
            self._printed = time.monotonic()
            console.print(f"step {line['step']:,} of {last_step:,}: {note}", soft_wrap=True)
        return note
