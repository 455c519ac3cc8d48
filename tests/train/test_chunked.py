"""A training whose loss is computed in chunks is the one with whole logits, sharded and not, tied and not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm1.model import loss
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.train.test_ranks import WATCHDOG_SECONDS, column, free_port


@pytest.mark.parametrize("tied", ["true", "false"])
def test_two_sharded_ranks_train_as_one_with_whole_logits(
    tied: str, recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"model.language_model.tie_embeddings={tied}", "train.z_loss=0.01", "train.steps=6"]
    recipe = load_recipe(str(recipe_file), settings)
    pretrain(recipe, tmp_path / "whole")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    command += ["--master_port", str(free_port()), "-m", "tests.train.chunked_ranks", "pretrain", str(recipe_file)]
    command += ["--to", str(tmp_path / "two"), *(a for setting in settings for a in ("--set", setting))]
    environment = {**os.environ, "MM1_DATA": str(data), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=WATCHDOG_SECONDS, check=False
    )
    assert result.returncode == 0, result.stderr
    with monkeypatch.context() as patch:
        patch.setattr(loss, "LOGITS_AT_ONCE", 4096)
        pretrain(recipe, tmp_path / "one")
    for name in ("loss", "grad_norm"):
        assert column(tmp_path / "one", name) == pytest.approx(column(tmp_path / "whole", name), rel=1e-4)
        assert column(tmp_path / "two", name) == pytest.approx(column(tmp_path / "whole", name), rel=2e-4)
