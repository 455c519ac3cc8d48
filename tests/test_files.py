from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mm1.files import LockedError, hold

HOLDER = """
import sys
from pathlib import Path
from mm1.files import hold

with hold(Path(sys.argv[1]), wait=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(lock: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDER, str(lock)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def release(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    process.stdin.close()


def line_of(stream) -> str:
    return stream.readline().strip()


def test_one_process_holds_it_and_the_next_waits(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with holder(lock) as held:
        assert line_of(held.stdout) == "held"
        waiting = holder(lock)
        assert line_of(waiting.stderr) == "a.lock: another process holds this lock; waiting for it"
        with pytest.raises(LockedError), hold(lock, wait=False):
            pass
        release(held)
        assert line_of(waiting.stdout) == "held"
        release(waiting)
        assert (held.wait(30), waiting.wait(30)) == (0, 0)


def test_it_goes_with_a_process_that_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with holder(lock) as killed:
        assert line_of(killed.stdout) == "held"
        killed.kill()
    with hold(lock, wait=False):
        assert lock.exists()
