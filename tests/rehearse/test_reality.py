"""A rehearsed step is the real one: the same recipe on 1 and 2 real ranks, watched by the same counters."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mm1.model.shape import recipe_config, vocabulary_size
from mm1.recipe import load_recipe
from mm1.rehearse.step import observe
from mm1.rehearse.world import rehearsed_world

SCRIPT = Path(__file__).parent / "real_rank.py"
SETTINGS = [
    "data.sequence_length=64",
    "data.images_per_sequence=2",
    "train.batch_size=8",
    "train.micro_batch_size=1",
]
WATCHDOG_SECONDS = 240


def real(folder: Path, ranks: int, *settings: str) -> list[dict]:
    """Return what real ranks did."""
    command = [sys.executable]
    if ranks > 1:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        command += ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
        command += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    subprocess.run(
        [*command, str(SCRIPT), str(folder), *SETTINGS, *settings],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=WATCHDOG_SECONDS,
    )
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def rehearsed(ranks: int, rank: int, *settings: str) -> dict:
    recipe = load_recipe("mm1-tiny", [*SETTINGS, *settings])
    config = recipe_config(recipe.model, vocabulary_size(recipe))
    with rehearsed_world(ranks, rank) as world:
        return observe(recipe, config, world, torch.bfloat16).as_json()


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        (1, []),
        (2, []),
        (2, ["train.replicas=2"]),
        (2, ["train.activation_checkpointing=true", "train.optimizer=adafactor", "model.language_model.num_experts=4"]),
    ],
    ids=["one", "two", "replicas", "sparse"],
)
def test_it_takes_the_memory_and_sends_the_bytes_of_a_real_step(
    ranks: int, settings: list[str], tmp_path: Path
) -> None:
    for rank, seen in enumerate(real(tmp_path, ranks, *settings)):
        mine = rehearsed(ranks, rank, *settings)
        for phase in ("start", "step", "checkpoint", "export"):
            expected = sum(seen["memory"][phase].values())
            assert sum(mine["memory"][phase].values()) == pytest.approx(expected, rel=0.1), phase
            assert expected > 0
        for name in ("sent", "calls", "stalls", "micro_batches"):
            assert mine[name] == seen[name]
        assert mine["host"] == pytest.approx(seen["host"], rel=0.01)
    assert bool(mine["sent"]) == (ranks > 1)
