"""A rehearsed step is the real one: the same recipe on 1 and 2 real ranks, watched by the same counters."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "one_rank.py"
SETTINGS = [
    "model.language_model.attention=sdpa",
    "data.sequence_length=64",
    "data.images_per_sequence=2",
    "train.batch_size=8",
    "train.micro_batch_size=1",
]
WATCHDOG_SECONDS = 240


def run(*command: str) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command], env=env, check=True, timeout=WATCHDOG_SECONDS)


def real(file: Path, ranks: int, *settings: str) -> list[dict]:
    """Return what real ranks did."""
    launcher = []
    if ranks > 1:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = str(s.getsockname()[1])
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
        launcher += ["--master_addr", "127.0.0.1", "--master_port", port]
    run(*launcher, str(SCRIPT), str(file), *SETTINGS, *settings)
    return [json.loads(Path(f"{file}.{rank}").read_text()) for rank in range(ranks)]


def rehearsed(file: Path, ranks: int, rank: int, *settings: str) -> dict:
    run(str(SCRIPT), str(file), f"{ranks},{rank}", *SETTINGS, *settings)
    seen: dict = json.loads(Path(f"{file}.{rank}").read_text())
    return seen


@pytest.mark.parametrize(
    ("ranks", "rank", "settings"),
    [
        (1, 0, []),
        (2, 0, ["train.replicas=2"]),
        (2, 1, ["train.activation_checkpointing=true", "train.optimizer=adafactor"]),
        (2, 0, ["model.language_model.num_experts=4"]),
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
