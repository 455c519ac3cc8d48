"""Ranks that have done their work end with 0, however late gloo's threads are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.train.test_ranks import WATCHDOG_SECONDS

TIMES = 5


def test_ranks_end_in_order(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.train.ending", str(TIMES), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["leftleft0 0"] * TIMES, result.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoints", "at-exit-0", "at-exit-1"}
