"""Misspelt words on the command line: one sentence with the nearest name, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pretrian", "demo"], "No such command 'pretrian'. Did you mean 'pretrain'?"),
        (["study", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["--versoin"], "No such option: --versoin (Possible options: --version)"),
        (["pretrain", "demo", "--evaluat"], "No such option: --evaluat (Possible options: --evaluate)"),
        (["launch", "--node", "2", "pretrain", "demo"], "No such option: --node (Possible options: --nodes)"),
        (
            ["launch", "pretrain", "demo", "--partitio", "a"],
            "No such option: --partitio (Possible options: --partition)",
        ),
        (["launch", "pretrian", "demo"], "No such command 'pretrian'. Did you mean 'pretrain'?"),
        (["compare", "runs/a"], "compare: one side is missing: name another run, or a model of the paper with --paper"),
    ],
)
def test_the_nearest_name_is_given(arguments: list[str], sentence: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mm1", *arguments],
        env={**os.environ, "COLUMNS": "150"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", [["pretrain", "demo"], ["sft", "sft-demo"]])
def test_tasks_behind_a_training_are_looked_for_before_it(tmp_path: Path, command: list[str]) -> None:
    arguments = [*command, "--evaluate", "--set", "evaluate.tasks=[pagse]", "--to", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith("task 'pagse' is unknown: did you mean pages")
    assert not (tmp_path / "run").exists()
