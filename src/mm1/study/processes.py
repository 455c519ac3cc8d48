"""Several `mm1` processes at a time, each with its output in a log of its own; signals are passed on to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from mm1.errors import Stopped
from mm1.study.plan import threads_per_job


class Processes:
    """The processes that run now. As a context it passes Ctrl-C and SIGTERM on to them, and starts none after that.

    Attributes:
        stopped: The number of the signal; 0 if there was none.
    """

    def __init__(self, jobs: int) -> None:
        """Start with no process.

        Args:
            jobs: The number of processes at a time, which share the cores equally.
        """
        self.stopped = 0
        self._threads = threads_per_job(jobs)
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        self._previous = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def running(self) -> list[str]:
        """Return the names of the processes."""
        with self._lock:
            return list(self._running)

    def call(self, name: str, words: Sequence[str], log: Path) -> str | None:
        """Call `mm1 WORDS` and wait for its end. Threads may do so at the same time.

        Args:
            name: The process's name, for `running`.
            words: The words of the command.
            log: The file that its output is added to.

        Returns:
            None, or why the command failed or was stopped: the last line of the log, or the signal that killed it.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            with self._lock:
                if self.stopped:
                    return "stopped"
                # In a new session, so that a Ctrl-C at the terminal reaches it once, through this process.
                process = subprocess.Popen(
                    [sys.executable, "-m", "mm1", *words],
                    stdout=file,
                    stderr=file,
                    env=environment,
                    start_new_session=True,
                )
                self._running[name] = process
            code = process.wait()
            with self._lock:
                del self._running[name]
        return None if code == 0 else _last_line(log, code)

    def raise_if_stopped(self) -> None:
        """Raise `Stopped` if a signal came."""
        if self.stopped:
            raise Stopped(self.stopped)

    def _stop(self, number: int, frame: object) -> None:
        self.stopped = number
        for process in list(self._running.values()):
            process.send_signal(number)


def _last_line(log: Path, code: int) -> str:
    if code < 0:  # it could not say why; the last line is of something else
        number = -code
        names = {each.value: each.name for each in signal.Signals}
        memory = ", perhaps since memory ran out" if number == signal.SIGKILL else ""
        return f"killed by {names.get(number, f'signal {number}')}{memory}"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"
