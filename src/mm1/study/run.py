"""Making a study's runs: each in a process of its own, some at a time, what is there left alone.

    for each run:  mm1 pretrain RUN.yaml --to RUN --evaluate

A run that fails is named and the others go on. Ctrl-C passes to the runs, which save a checkpoint; the same
command goes on from there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mm1.errors import Stopped
from mm1.progress import console, progress_bar
from mm1.study.plan import DONE, StudyRun, threads_per_job
from mm1.train.run import write_text


@dataclass(frozen=True)
class Failure:
    """A run that did not come to its end.

    Attributes:
        run: Which.
        reason: The last thing that it said.
    """

    run: StudyRun
    reason: str


def make_runs(runs: Sequence[StudyRun], jobs: int = 1) -> list[Failure]:
    """Train and score the runs that are not done.

    Args:
        runs: As planned.
        jobs: How many at a time; the cores are shared out among them.

    Returns:
        The runs that failed, with what they said last.

    Raises:
        Stopped: If Ctrl-C or SIGTERM came; what was done is kept.
    """
    missing = [run for run in runs if run.seconds is None]
    failures: list[Failure] = []
    workers = _Workers(jobs)
    with progress_bar() as bar, workers, ThreadPoolExecutor(jobs) as pool:
        task = bar.add_task("runs", total=len(runs), completed=len(runs) - len(missing), note="")
        pending: dict[Future[str | None], StudyRun] = {pool.submit(workers.make, run): run for run in missing}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED, timeout=0.5)
            for future in done:
                run = pending.pop(future)
                reason = future.result()
                if reason is not None and not workers.stopped:
                    failures.append(Failure(run, reason))
                    console.print(f"[yellow]failed: {run.name}: {reason} (see {run.log})[/]")
                bar.advance(task)
            bar.update(task, note=" · ".join(workers.under_way()))
    if workers.stopped:
        raise Stopped(workers.stopped)
    return failures


class _Workers:
    """The processes of the runs under way; a signal to this process is passed on to them."""

    def __init__(self, jobs: int) -> None:
        self.stopped = 0
        self._threads = threads_per_job(jobs)
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> _Workers:
        self._previous = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def under_way(self) -> list[str]:
        """Return the names of the runs under way."""
        with self._lock:
            return list(self._processes)

    def make(self, run: StudyRun) -> str | None:
        """Train and score one run; return None, or why it failed."""
        run.directory.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        recipe = run.directory.with_suffix(".yaml")
        write_text(recipe, run.recipe.to_yaml())
        reason = self._call(run, ["pretrain", str(recipe), "--to", str(run.directory), "--evaluate"])
        if reason is not None:
            return reason
        recipe.unlink()
        done = {"run": run.name, "evaluate": run.evaluation, "seconds": time.monotonic() - began}
        write_text(run.directory / DONE, json.dumps(done, indent=2) + "\n")
        return None

    def _call(self, run: StudyRun, words: Sequence[str]) -> str | None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads), "OMP_WAIT_POLICY": "PASSIVE"}
        with run.log.open("ab") as file:
            with self._lock:
                if self.stopped:
                    return "stopped"
                # In a session of its own: a Ctrl-C at the terminal comes through this process, once.
                process = subprocess.Popen(
                    [sys.executable, "-m", "mm1", *words],
                    stdout=file,
                    stderr=file,
                    env=environment,
                    start_new_session=True,
                )
                self._processes[run.name] = process
            code = process.wait()
            with self._lock:
                del self._processes[run.name]
        return None if code == 0 else _last_line(run.log, code)

    def _stop(self, number: int, frame: object) -> None:
        self.stopped = number
        for process in list(self._processes.values()):
            process.send_signal(number)


def _last_line(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"
