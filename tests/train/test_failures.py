"""A rank that fails ends the whole job soon, with its own sentence, while the others wait for it in a collective."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mm1.train.checkpoint import checkpoints
from mm1.train.parallel import record_collectives
from tests.train import failing
from tests.train.forked import end, start_ranks
from tests.train.test_ranks import free_port

SECONDS = 60
"""Longest time from a failure to the end of the job."""


def command(recipe_file: Path, run: Path, rank: int, how: str, *settings: str) -> list[object]:
    """Have a rank fail at step 6 (see `tests.train.failing`), when that checkpoint is being written."""
    settings = ("train.checkpoint_every=2", *settings)
    return [rank, how, 6, "pretrain", recipe_file, "--to", run, *(word for s in settings for word in ("--set", s))]


def train(arguments: Sequence[object], run: Path, *, saved: int = 6, **environment: str) -> list[str]:
    """Run this on two ranks that nobody looks after: each ends by itself.

    Return what each prints; check that they end soon, and that the last checkpoint is that of a step.
    """
    ranks = start_ranks(2, arguments, Path(f"{run}.log"), program=failing.main, environment=environment)
    while not any(path.name == "step-000004" for path in checkpoints(run / "checkpoints")) and ranks[0].is_alive():
        time.sleep(0.05)
    began = time.monotonic()
    codes = end(ranks)
    assert time.monotonic() - began < SECONDS
    assert 0 not in codes
    said = [Path(f"{run}.log.{rank}").read_text() for rank in (0, 1)]
    assert checkpoints(run / "checkpoints")[-1].name == f"step-{saved:06d}", said
    return said


@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_on_one_rank_is_printed_and_ends_all(
    rank: int, recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said = "".join(train(command(recipe_file, run, rank, "mistake"), run))
    assert f"rank {rank}: the sky has fallen: put it back" in said
    assert "Traceback" not in said


def test_an_unexpected_error_on_one_rank_ends_all(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _, said = train(command(recipe_file, run, 1, "bug"), run)
    assert "ZeroDivisionError: the sky is zero" in said


def test_a_killed_rank_ends_all(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    """Under torchrun, as a whole job."""
    run = tmp_path / "run"
    # Its workers outlive it for some seconds, and with them its connections.
    arguments = command(recipe_file, run, 1, "killed", "data.workers=1")
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    job = subprocess.Popen(
        [sys.executable, *launcher, "--master_port", str(free_port()), "-m", failing.__name__, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(path.name == "step-000004" for path in checkpoints(run / "checkpoints")) and job.poll() is None:
        time.sleep(0.05)
    began = time.monotonic()
    _, said = job.communicate(timeout=2 * SECONDS)
    assert time.monotonic() - began < SECONDS
    assert job.returncode != 0
    assert checkpoints(run / "checkpoints")[-1].name == "step-000004", said
    assert "rank 1 has ended without a word" in said


def test_a_rank_that_is_killed_while_tokens_go_to_experts_ends_all(
    recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = ("model.language_model.num_experts=4", "model.language_model.sparse_every=1")
    said, _ = train(command(recipe_file, run, 1, "sending", *settings), run, saved=4)
    assert "rank 1 has ended without a word" in said


def test_a_rank_that_stands_still_is_shown(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = "".join(train(command(recipe_file, run, 1, "asleep"), run, MM1_STEP_TIMEOUT="8"))
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
