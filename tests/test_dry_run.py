"""`--dry-run`: what a training would do is said, nothing is trained, and it fails where the training would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mm1.cli import app
from mm1.dry_run import budget_table, machine_budget
from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.train.prepare import make_plan


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, prog_name="mm1", env={"COLUMNS": "120"}, catch_exceptions=False)


def test_a_dry_run_says_what_would_be_done(data: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe_file.parent)
    said = run("pretrain", str(recipe_file), "--set", "train.steps=6", "--dry-run").stdout
    recipe, _, rest = said.partition("\n\n")
    assert yaml.safe_load(recipe)["train"]["steps"] == 6
    assert "captions/train" in rest
    assert "6 steps of 4 sequences" in rest
    for row in ("on this machine", "precision", "FLOPs of the run", "memory", "step", "training"):
        assert row in rest
    assert list(Path.cwd().iterdir()) == [recipe_file]


def test_the_budget_is_of_the_recipe(data: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the steps take ten times as long; a step costs the same. What doesn't fit is said."""
    short, long = load_recipe(str(recipe_file)), load_recipe(str(recipe_file), ["train.steps=120"])
    info = make_plan(short)
    budgets = [machine_budget(recipe, info) for recipe in (short, long)]
    assert budget_table(budgets[0], info).row_count == 7
    assert budgets[1].flops == budgets[0].flops
    assert budgets[1].workload.steps == 10 * budgets[0].workload.steps
    assert budgets[1].memory.total == budgets[0].memory.total > 16 * 10_000
    monkeypatch.setattr("os.sysconf", lambda name: 100)  # a machine of 10 kB
    with pytest.raises(UserError, match="tiny does not fit on 1 x .*: the smallest layout takes"):
        machine_budget(short, info)


def test_a_dry_run_fails_where_the_training_would(
    data: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="fine-tuning needs conversations"):
        run("sft", str(recipe_file), "--dry-run")
    monkeypatch.setenv("MM1_DATA", str(recipe_file.parent / "nothing"))
    with pytest.raises(UserError, match="no corpus there"):
        run("pretrain", str(recipe_file), "--dry-run")
