"""Threads that wait soon sleep, unless the user wants otherwise; it is set before torch is loaded, which reads it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASK = """
import os, sys
import mm1.cli
mm1.cli.app = lambda **_: print(os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
mm1.cli.main()
"""


@pytest.mark.parametrize(
    ("of_user", "expected"),
    [
        ({}, ["PASSIVE", "1000"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None"]),
        ({"GOMP_SPINCOUNT": "7"}, ["PASSIVE", "7"]),
    ],
)
def test_the_policy_of_waiting_threads(of_user: dict[str, str], expected: list[str]) -> None:
    own = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    result = subprocess.run(
        [sys.executable, "-c", ASK], env={**own, **of_user}, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [*expected, "False"]
