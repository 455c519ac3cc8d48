"""Misspelt words on the command line: one sentence with the nearest name, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


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
