from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mm1.study.processes import Processes

POPEN = subprocess.Popen


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("sys.exit('error: it is wrong')", "error: it is wrong"),
        ("sys.exit(3)", "resuming from step 2"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL, perhaps since memory ran out"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
    ],
)
def test_the_reason_is_what_the_process_said_last_unless_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, reason: str
) -> None:
    def script(command: Any, **options: Any) -> Any:
        code = f"import os, signal, sys; print('resuming from step 2', flush=True); {end}"
        return POPEN([sys.executable, "-c", code], **options)

    monkeypatch.setattr("mm1.study.processes.subprocess.Popen", script)
    assert Processes(1).call("a run", ["pretrain"], tmp_path / "log") == reason
