"""Experts spread over ranks: gradients, losses, checkpoints and failures, on real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at

from .expert_ranks import CASES
from .test_ranks import WATCHDOG_SECONDS, column, free_port, train_on_two

ROOT = Path(__file__).parents[2]
EXPERTS = ["model.language_model.num_experts=4", "model.language_model.sparse_every=1"]


def run(ranks: int, module: str, *arguments: str) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--master_addr", "127.0.0.1"]
    command = [sys.executable, *launcher, "--master_port", str(free_port()), "-m", module, *arguments]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("ranks", "cases"),
    [
        (2, ["plain", "recomputed", "kept", "accumulated", "gathered", "one_rank_gets_none", "eager", "bf16"]),
        (4, [name for name in CASES if name not in ("kept", "gathered", "eager")]),
    ],
)
def test_losses_and_gradients_are_those_of_one_process(ranks: int, cases: list[str], tmp_path: Path) -> None:
    """With packed rows and padding, pictures on some ranks, the routers' losses, and a rank that gets no token."""
    run(ranks, "tests.train.expert_ranks", str(tmp_path / "found.json"), *cases)
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == cases
    for name, differences in found.items():
        if name == "bf16":
            assert max(differences["loss"], differences["routers"]) < 1e-3
            assert differences["norm"] < 1e-2
        else:
            assert max(differences.values()) < 2e-6, name


def test_checkpoints_load_however_experts_are_spread(tmp_path: Path) -> None:
    """From each of 1, 2 and 4 ranks to each, over each of 1, 2 and 4 ranks where there are so many."""
    (tmp_path / "checkpoints").mkdir()
    for ranks in (1, 4, 2, 4, 1):
        run(ranks, "tests.train.expert_checkpoints", str(tmp_path / "checkpoints"))
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert len(names) == 1 + 3 + 2 + 3 + 1


def test_a_run_is_trained_resumed_and_exported(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    """Begun on one rank, gone on with on two, among which the experts are spread."""
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(load_recipe(str(recipe_file), EXPERTS), one)
    with breaking_at(6):
        pretrain(load_recipe(str(recipe_file), EXPERTS), two)
    result = train_on_two(recipe_file, two, data, *EXPERTS)
    assert result.returncode == 0, result.stderr
    assert "resuming from step 4" in result.stderr
    for name in ("loss", "grad_norm", "router/balance", "router/z", "router/fullest_expert"):
        assert column(two, name) == pytest.approx(column(one, name), rel=5e-4), name
    assert all(1 <= line <= 2 for line in column(two, "router/fullest_rank")[4:])
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (two, one))
    assert {name: value.shape for name, value in ours.items()} == {name: v.shape for name, v in theirs.items()}
    for name in theirs:
        if not name.endswith("k_proj.bias"):
            assert torch.allclose(ours[name], theirs[name], atol=2e-4), name


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["train.expert_parallel=3"], "train.expert_parallel 3 does not divide the 4 experts of a layer"),
        (["train.expert_parallel=4"], "train.expert_parallel 4 does not divide the 2 ranks that share the model"),
    ],
)
def test_experts_that_cant_be_spread_are_one_sentence(
    settings: list[str], sentence: str, recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    result = train_on_two(recipe_file, tmp_path / "run", data, *EXPERTS, *settings)
    assert result.returncode != 0
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr.split("torch/distributed")[0]
