"""A run of a few steps, as people try a recipe: what was set for a long run must not stop it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mm1.cli import app
from tests.conftest import tiny_recipe


@pytest.mark.parametrize("steps", [1, 5])
def test_a_long_recipe_made_short(steps: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tiny_recipe()
    content["train"] |= {"steps": 5000, "warmup_steps": 1000, "log_every": 100, "checkpoint_every": 500}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["pretrain", "long.yaml", "--set", f"train.steps={steps}"], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"train.warmup_steps is {steps // 5} and not 1,000, for train.steps is {steps} and not 5,000" in done.output
    run = Path("runs/tiny")
    assert (run / "model" / "config.json").is_file()
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [steps]
    assert [folder.name for folder in (run / "checkpoints").iterdir()] == [f"step-{steps:06d}"]
    # The same command again is the same run, and a resolved recipe is read without a word.
    again = CliRunner().invoke(app, ["pretrain", "long.yaml", "--set", f"train.steps={steps}"], catch_exceptions=False)
    assert "there is nothing to train" in again.output
