"""How sure a number must be: one level for every interval, band and test."""

from __future__ import annotations

CONFIDENCE = 0.95
"""Of every interval and band: the share of them that hold the true value."""

SIGNIFICANCE = 1 - CONFIDENCE
"""Of every test: the chance of calling a difference real that is none."""

TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
"""The quantiles between which a two-sided interval lies."""
