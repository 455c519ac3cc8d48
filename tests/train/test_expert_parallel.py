"""Experts spread over ranks: gradients, losses, checkpoints and failures, on real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at

from .expert_ranks import CASES
from .test_ranks import WATCHDOG_SECONDS, column, free_port, train_on_two

SCRIPT = Path(__file__).parent / "expert_ranks.py"
ROOT = Path(__file__).parents[2]
EXPERTS = ["model.language_model.num_experts=4", "model.language_model.sparse_every=1"]


def launch(ranks: int, *arguments: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
    return [*launcher, "--master_addr", "127.0.0.1", "--master_port", str(free_port()), *arguments]


@pytest.mark.parametrize(
    ("ranks", "cases"),
    [
        (2, ["plain", "recomputed", "kept", "accumulated", "gathered", "one_rank_gets_none", "eager", "bf16"]),
        (4, [name for name in CASES if name not in ("kept", "gathered", "eager")]),
    ],
)
def test_losses_and_gradients_are_those_of_one_process(ranks: int, cases: list[str], tmp_path: Path) -> None:
    """With packed rows and padding, pictures on some ranks, the routers' losses, and a rank that gets no token."""
    result = subprocess.run(
        launch(ranks, str(SCRIPT), str(tmp_path / "found.json"), *cases),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == cases
    for name, differences in found.items():
        if name == "bf16":
            assert max(differences["loss"], differences["routers"]) < 1e-3
            assert differences["norm"] < 1e-2
        else:
            assert max(differences.values()) < 2e-6, name
