"""Threads that wait sleep, unless the user wants otherwise; it is set before torch is loaded, which reads it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASK = """
import os, sys
import mm1.cli
mm1.cli.app = lambda **_: print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
mm1.cli.main()
"""


@pytest.mark.parametrize(("of_user", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_policy_of_waiting_threads(of_user: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if of_user is not None:
        environment["OMP_WAIT_POLICY"] = of_user
    result = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [expected, "False"]
