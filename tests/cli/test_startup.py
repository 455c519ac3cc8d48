"""What only prints starts at once: it loads nothing that computes. Each command runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "scipy", "matplotlib", "numpy", "pyarrow", "duckdb", "PIL")
MOST_MODULES = 500
"""Of a process in all. Measured: 262 (--version) to 437; importing torch alone takes it to over 1,500."""

RUN_AND_COUNT = f"""
import sys
from mm1.cli import main
try:
    main()
finally:
    print(len(sys.modules), *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def modules_of(*arguments: str, code: int, **environment: str) -> list[str]:
    """Run a command, and return how many modules it loaded and which of them are heavy."""
    result = subprocess.run(
        [sys.executable, "-c", RUN_AND_COUNT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return result.stderr.splitlines()[-1].split()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["tasks"], 0),
        (["study", "list"], 0),
        (["recipe", "list"], 0),
        (["recipe", "show", "demo"], 0),
        (["recipe", "keys", "train"], 0),
        (["recipe", "keys", "wurmup"], 2),
        (["data", "build", "--help"], 0),
        (["launch", "--help"], 0),
        (["--halp"], 2),
        (["pretrian"], 2),
        (["evaluate", "runs/demo", "--taskz", "pages"], 2),
        (["launch", "pretrain", "demo", "--node", "2"], 2),
    ],
)
def test_nothing_heavy_is_loaded(arguments: list[str], code: int) -> None:
    count, *heavy = modules_of(*arguments, code=code)
    assert heavy == []
    assert int(count) < MOST_MODULES


@pytest.mark.parametrize("words", ["mm1 ", "mm1 pretrain ", "mm1 evaluate runs/demo --tasks ", "mm1 study run lap"])
def test_completion_loads_nothing_heavy(words: str) -> None:
    place = str(len(words.split(" ")) - 1)
    count, *heavy = modules_of(code=0, _MM1_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place)
    assert heavy == []
    assert int(count) < MOST_MODULES
