"""A rehearsed step is the real one: the same recipe on 1 and 2 real ranks, watched by the same counters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rehearse.one_rank import write_seen
from tests.train.forked import on_ranks

SETTINGS = [
    "model.language_model.attention=sdpa",
    "data.sequence_length=64",
    "data.images_per_sequence=2",
    "train.batch_size=8",
    "train.micro_batch_size=1",
]


def real(file: Path, ranks: int, *settings: str) -> list[dict]:
    """Return what real ranks did."""
    on_ranks(ranks, write_seen, file, [*SETTINGS, *settings])
    return [json.loads(Path(f"{file}.{rank}").read_text()) for rank in range(ranks)]


def rehearsed(file: Path, ranks: int, rank: int, *settings: str) -> dict:
    on_ranks(1, write_seen, file, [*SETTINGS, *settings], (ranks, rank))
    seen: dict = json.loads(Path(f"{file}.{rank}").read_text())
    return seen


@pytest.mark.parametrize(
    ("ranks", "rank", "settings"),
    [
        (1, 0, []),
        (2, 0, ["train.replicas=2"]),
        (2, 1, ["train.activation_checkpointing=true", "train.optimizer=adafactor"]),
        # Every token goes to both experts, one on each rank: real routers divide tokens as a rehearsal does.
        (2, 0, ["model.language_model.num_experts=2"]),
    ],
    ids=["one", "replicas", "sharded", "sparse"],
)
def test_it_takes_the_memory_and_sends_the_bytes_of_a_real_step(
    ranks: int, rank: int, settings: list[str], tmp_path: Path
) -> None:
    seen = real(tmp_path / "real", ranks, *settings)[rank]
    mine = rehearsed(tmp_path / "rehearsed", ranks, rank, *settings)
    for phase in ("start", "step", "checkpoint"):
        expected = sum(seen["memory"][phase].values())
        assert sum(mine["memory"][phase].values()) == pytest.approx(expected, rel=0.1), phase
        assert expected > 0
    for name in ("sent", "calls", "stalls", "micro_batches"):
        assert mine[name] == seen[name]
    assert mine["host"] == pytest.approx(seen["host"], rel=0.01)
    assert bool(mine["sent"]) == (ranks > 1)
