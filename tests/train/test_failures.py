"""A rank that fails ends the whole job soon, with its own sentence, while the others wait for it in a collective."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mm1.train.checkpoint import checkpoints
from mm1.train.parallel import record_collectives
from tests.train.test_ranks import free_port

SECONDS = 60
"""Longest time from a failure to the end of the job."""


def train(
    recipe_file: Path,
    run: Path,
    data: Path,
    *failing: object,
    saved: int = 6,
    workers: int = 0,
    settings: tuple[str, ...] = (),
    **environment: str,
) -> str:
    """Have a rank fail at step 6 (see `tests.train.failing`), when that checkpoint is being written.

    Return what the job prints; check that it ends soon, and that its last checkpoint is that of a step.
    """
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    command = [sys.executable, *launcher, "--master_port", str(free_port()), "-m", "tests.train.failing"]
    command += [*map(str, failing), "6", "pretrain", str(recipe_file), "--to", str(run)]
    for setting in ("train.checkpoint_every=2", f"data.workers={workers}", *settings):
        command += ["--set", setting]
    job = subprocess.Popen(
        command,
        env={**os.environ, "MM1_DATA": str(data), "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(path.name == "step-000004" for path in checkpoints(run / "checkpoints")) and job.poll() is None:
        time.sleep(0.05)
    began = time.monotonic()
    _, said = job.communicate(timeout=2 * SECONDS)
    assert time.monotonic() - began < SECONDS
    assert job.returncode != 0
    assert checkpoints(run / "checkpoints")[-1].name == f"step-{saved:06d}", said
    return said


@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_on_one_rank_is_printed_and_ends_all(
    rank: int, recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    said = train(recipe_file, tmp_path / "run", data, rank, "mistake")
    assert f"rank {rank}: the sky has fallen: put it back" in said
    assert "Traceback" not in said.split("torch/distributed")[0]


def test_an_unexpected_error_on_one_rank_ends_all(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    said = train(recipe_file, tmp_path / "run", data, 1, "bug")
    assert "ZeroDivisionError: the sky is zero" in said


def test_a_killed_rank_ends_all(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    # Its workers outlive it for some seconds, and with them its connections.
    said = train(recipe_file, tmp_path / "run", data, 1, "killed", saved=4, workers=1)
    assert "rank 1 has ended without a word" in said


def test_a_rank_that_is_killed_while_tokens_go_to_experts_ends_all(
    recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    settings = ("model.language_model.num_experts=4", "model.language_model.sparse_every=1")
    said = train(recipe_file, tmp_path / "run", data, 1, "sending", saved=4, settings=settings)
    assert "rank 1 has ended without a word" in said


def test_a_rank_that_stands_still_is_shown(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    said = train(recipe_file, tmp_path / "run", data, 1, "asleep", MM1_STEP_TIMEOUT="8")
    assert "no step has ended for 8 s since step 6" in said
    (asleep,) = re.findall(r"where rank 1 stands:\n((?:  .*\n)*)", said)
    assert re.search(r"failing\.py\", line \d+ in fail\n", asleep)


def test_collectives_are_recorded_on_gpus_as_the_user_wants(tmp_path: Path) -> None:
    environment = {"TORCH_NCCL_TRACE_BUFFER_SIZE": "0", "HOME": "/home/you"}
    record_collectives(tmp_path, environment)
    assert environment == {
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "0",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": f"{tmp_path}/rank_",
        "HOME": "/home/you",
    }
