"""What a training tells about itself: a line of figures, a bar in the terminal, loss spikes.

What every key of a line means is in docs/reference/training-log.md.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mm1.document import KINDS
from mm1.progress import console
from mm1.train.objective import Losses

SPIKE_DEVIATIONS = 7
"""Standard deviations above the mean from which a loss is a spike (OLMo 2's spike score, arXiv 2501.00656)."""
SPIKE_WINDOW = 1000
"""Steps that mean and deviation are taken over (as above)."""
SPIKE_MINIMUM = 100
"""Steps there must be before any is called a spike (LLM Foundry's detector has the same)."""
PRINT_SECONDS = 30
"""How often a line is printed where no terminal shows the bar."""


@dataclass
class StepLosses:
    """The losses of one rank's micro-batches in a step, on its device until they are asked for."""

    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(len(KINDS)))
    counts: torch.Tensor = field(default_factory=lambda: torch.zeros(len(KINDS)))
    figures: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, losses: Losses) -> None:
        """Add a micro-batch."""
        self.sums = self.sums.to(losses.by_kind.device) + losses.by_kind
        self.counts = self.counts.to(losses.by_kind.device) + losses.counts_by_kind
        self.figures = losses.figures

    def values(self) -> list[float]:
        """Return the sums and then the counts, kind by kind."""
        return [*self.sums.tolist(), *self.counts.tolist()]


@dataclass
class Window:
    """What happened between two lines of the log, on all ranks together.

    Attributes:
        time: Seconds inside steps.
        waited: Seconds of these that this rank waited for batches.
        tokens: Without padding.
        images: Real ones.
        flops: Of the model in forward and backward passes.
        norm: Gradient norm of the last step, before clipping.
        norms: The same by part of the model.
        figures: Of the last micro-batch, this rank's.
    """

    time: float = 0.0
    waited: float = 0.0
    tokens: int = 0
    images: int = 0
    flops: float = 0.0
    norm: float = 0.0
    norms: dict[str, float] = field(default_factory=dict)
    figures: dict[str, torch.Tensor] = field(default_factory=dict)
    loss_sums: list[float] = field(default_factory=lambda: [0.0] * len(KINDS))
    loss_counts: list[float] = field(default_factory=lambda: [0.0] * len(KINDS))

    def add_losses(self, values: Sequence[float]) -> float:
        """Add a step's losses, `StepLosses.values` summed over the ranks; return their mean."""
        sums, counts = values[: len(KINDS)], values[len(KINDS) :]
        self.loss_sums = [a + b for a, b in zip(self.loss_sums, sums, strict=True)]
        self.loss_counts = [a + b for a, b in zip(self.loss_counts, counts, strict=True)]
        return sum(sums) / max(1.0, sum(counts))

    def line(self, peak_flops: float) -> dict[str, float]:
        """Return the figures of a line of the log.

        Args:
            peak_flops: FLOP/s of all devices together at their best; without `flops` it isn't used.
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
        return line


class SpikeWatch:
    """Finds losses far above what came before.

    A step's loss is a spike if it lies more than `SPIKE_DEVIATIONS` standard deviations above the mean of the
    last `SPIKE_WINDOW` steps.

    Args:
        losses: Of the steps before, the oldest first.
    """

    def __init__(self, losses: Sequence[float] = ()) -> None:
        self.losses = deque(losses, maxlen=SPIKE_WINDOW)
        self._inside = False

    def is_spike(self, loss: float, step: int) -> bool:
        """Take note of a step's loss and say whether it is a spike; where a row of them begins, print so.

        Args:
            loss: Mean of the step's terms; what isn't finite is no spike and is forgotten.
            step: Counted from 1.
        """
        if not math.isfinite(loss):
            return False
        found = False
        if len(self.losses) >= SPIKE_MINIMUM:
            mean, deviation = np.mean(self.losses), np.std(self.losses)
            found = bool(loss > mean + SPIKE_DEVIATIONS * deviation)
            if found and not self._inside:
                console.print(
                    f"[yellow]step {step:,}: a loss spike: {loss:.2f}, where the {len(self.losses):,} steps before "
                    f"have {mean:.2f} ± {deviation:.2f} (a spike is more than {SPIKE_DEVIATIONS} deviations above)[/]"
                )
        self._inside = found
        self.losses.append(loss)
        return found


class Terminal:
    """Says how training goes: below the bar in a terminal, else as a printed line every now and then."""

    def __init__(self) -> None:
        self._printed = -math.inf

    def note(self, line: dict[str, Any], last_step: int) -> str:
        """Return a line of the log in short."""
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
