"""What is left out, changed or stored otherwise: counted by reason, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

EXAMPLES_PER_SKIP_REASON = 5
"""Examples that are kept of a reason."""


@dataclass
class Skips:
    """What a reader left out: counted by reason, with the first few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count a skipped item, or several of one place, naming it."""
        self.counts[reason] += count
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_PER_SKIP_REASON:
            examples.append(example)

    def as_dict(self) -> dict[str, Any]:
        """Return `{reason: {"count": ..., "examples": [...]}}`."""
        return {r: {"count": n, "examples": self.examples[r]} for r, n in sorted(self.counts.items())}


def merge_reasons(several: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `{reason: {"count", "examples"}}` of several such mappings together, the first examples kept."""
    merged: dict[str, Any] = {}
    for reasons in several:
        for reason, entry in reasons.items():
            whole = merged.setdefault(reason, {"count": 0, "examples": []})
            whole["count"] += entry["count"]
            whole["examples"] = (whole["examples"] + entry["examples"])[:EXAMPLES_PER_SKIP_REASON]
    return dict(sorted(merged.items()))
