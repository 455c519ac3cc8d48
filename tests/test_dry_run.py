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
from tests.conftest import tiny_recipe


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


def test_the_budget_is_of_the_recipe(data: Path) -> None:
    """Ten times the steps are ten times the FLOPs and the time; a step costs the same."""
    budgets = []
    for steps in (12, 120):
        recipe = load_recipe("demo", changes={**tiny_recipe(), "train": {**tiny_recipe()["train"], "steps": steps}})
        info = make_plan(recipe)
        budgets.append(machine_budget(recipe, info))
        assert budget_table(budgets[-1], info).row_count == 7
    short, long = budgets
    assert long.flops == short.flops
    assert long.workload.steps == 10 * short.workload.steps
    assert long.memory.total == short.memory.total > 16 * 10_000


def test_a_dry_run_fails_where_the_training_would(
    data: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="fine-tuning needs conversations"):
        run("sft", str(recipe_file), "--dry-run")
    monkeypatch.setenv("MM1_DATA", str(recipe_file.parent / "nothing"))
    with pytest.raises(UserError, match="no corpus there"):
        run("pretrain", str(recipe_file), "--dry-run")


def test_what_does_not_fit_is_said(data: Path, recipe_file: Path) -> None:
    big = [
        f"model.language_model={{hidden_size: {2**14}, num_layers: 400, num_heads: 128}}",
        "tokenizer.vocab_size=320",
    ]
    recipe = load_recipe(str(recipe_file), big)
    with pytest.raises(UserError, match="tiny does not fit on 1 x .*: the smallest layout takes"):
        machine_budget(recipe, make_plan(recipe))
