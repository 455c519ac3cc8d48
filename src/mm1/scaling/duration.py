"""How long the demo takes on this machine: its work in passes of one layer, and how long a pass takes here.

    half a second of passes --> seconds of one --x passes of a step, an encoder's step, a scored item--> seconds

The layer has the demo's width and rows, so its products, its elementwise work and the start of threads are to a
training step as here, on other machines and in other precisions too.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

_SECONDS = 0.5
_ROWS, _LENGTH, _WIDTH, _HEADS, _INNER = 8, 256, 192, 4, 512
"""Of the demo: sequences of a step, their length; the decoder's width, heads and feed-forward width."""

STEP, ENCODER_STEP = 8.0, 8.3
"""Passes of a training step of the demo and of its encoder (two cores with AVX512-BF16: 7.2 in float32, 7.4 in
bfloat16; rounded up, since one core with AVX2 needed more)."""
ITEM, CORPUS = 0.16, 290.0
"""Passes of a scored item at one number of shots, and of a fifth of what comes before and between the trainings."""


@dataclass(frozen=True)
class Work:
    """What is left to do.

    Attributes:
        corpora: Corpora to build.
        encoder_steps: Training steps of the encoder.
        steps: Training steps of the model.
        items: Items to score, at each number of shots.
    """

    corpora: int
    encoder_steps: int
    steps: int
    items: int

    def seconds(self, of_pass: float) -> float:
        """Return how long the work takes where a pass takes so many seconds."""
        passes = self.corpora * CORPUS + self.encoder_steps * ENCODER_STEP + self.steps * STEP + self.items * ITEM
        return passes * of_pass


def seconds_of_pass(dtype: torch.dtype | None = None, measured_for: float = _SECONDS) -> float:
    """Measure the layer on this machine's CPU, with the threads that training uses.

    Args:
        dtype: Precision of matrix products (see `mm1.train.capabilities.autocast_dtype`).
        measured_for: Seconds; a first pass, which makes kernels, comes before.

    Returns:
        The median of seconds of a pass, forward and backward.
    """
    with torch.random.fork_rng():
        layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, _INNER, dropout=0.0, activation="gelu", batch_first=True)
        rows = torch.randn(_ROWS, _LENGTH, _WIDTH, requires_grad=True)
    took: list[float] = []
    end = float("inf")
    while time.perf_counter() < end or len(took) < 3:
        began = time.perf_counter()
        with torch.autocast("cpu", dtype) if dtype else nullcontext():
            output = layer(rows)
        output.float().sum().backward()
        took.append(time.perf_counter() - began)
        end = min(end, time.perf_counter() + measured_for)
    return statistics.median(took[1:])


def in_words(seconds: float) -> str:
    """Return a duration as people say it."""
    minutes = round(seconds / 60)
    return "less than a minute" if seconds < 45 else f"about {max(1, minutes)} minute{'s' if minutes > 1 else ''}"
