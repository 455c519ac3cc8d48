"""Makes a study's runs: one process per training, several at a time; completed runs are skipped.

    mm1 COMMAND, for each command that the study names as `first`
    for each run:  mm1 study make RUN.yaml --to RUN   (several files: the same training, scored in several ways)

If a run fails, its name is printed and the others continue. Ctrl-C is passed on to the runs, which save a checkpoint;
the same command resumes them.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mm1.errors import Stopped, UserError
from mm1.files import write_json, write_text
from mm1.progress import console, progress_bar
from mm1.ranks import is_first_rank
from mm1.study.plan import (
    DONE,
    TRAINED,
    StudyRun,
    plan_runs,
    scores_folder,
    threads_per_job,
    training_seconds,
    weights_digest,
)
from mm1.study.schema import Study
from mm1.study.version import RESULTS_VERSION


@dataclass(frozen=True)
class Failure:
    """A run that failed.

    Attributes:
        run: The run.
        reason: The last line of its log.
    """

    run: StudyRun
    reason: str


def prepared_runs(study: Study, store: Path) -> list[StudyRun]:
    """Return a study's runs. If any run is not done, call the study's `first` commands before.

    Args:
        study: The study.
        store: See `plan_runs`.

    Raises:
        UserError: If one of the `first` commands failed, or an arm doesn't fit the recipe.
        Stopped: On Ctrl-C or SIGTERM.
    """
    runs = plan_runs(study, store)
    if not study.first or all(run.seconds is not None for run in runs):
        return runs
    for command in study.commands():
        if not _prepare(command):
            raise UserError(f"study {study.name}: `mm1 {command}` failed: read its output above")
    weights_digest.cache_clear()  # runs' names depend on the weights that they start from
    return plan_runs(study, store)


@cache
def _prepare(command: str) -> bool:
    """Call a `first` command, once for all studies of this process; return whether it succeeded."""
    console.rule(f"mm1 {command}", align="left")
    return _call_mm1(shlex.split(command)) == 0


def _call_mm1(words: Sequence[str]) -> int:
    """Call mm1 in a process. Ctrl-C at the terminal reaches that process too, and it saves before it ends."""
    process = subprocess.Popen([sys.executable, "-m", "mm1", *words])
    stopped = 0

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = number
        if number == signal.SIGTERM:
            process.terminate()

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stopped:
        raise Stopped(stopped)
    return code


def make_run(files: Sequence[Path], directory: Path) -> None:
    """Train and score one or several runs of the same training, or resume them, and mark them as done.

    Under torchrun or SLURM every rank calls this function.

    Args:
        files: Recipes that differ only in `evaluate`; each file is removed when its run is done.
        directory: The directory that the runs share.

    Raises:
        UserError: See `mm1.train.pretrain.pretrain` and `mm1.evaluate.run.evaluate_run`.
        Stopped: If it was interrupted; a checkpoint has been saved.
    """
    from mm1.evaluate.during import scorer_during_training
    from mm1.evaluate.run import evaluate_run
    from mm1.evaluate.settings import EvaluationSettings
    from mm1.recipe import load_recipe
    from mm1.train.pretrain import pretrain

    recipes = {file: load_recipe(str(file)) for file in files}
    first = recipes[files[0]]
    before, began = training_seconds(directory), time.monotonic()
    try:
        pretrain(first, directory, scorer_during_training(first.evaluate))
    finally:
        if is_first_rank() and directory.is_dir():
            write_json(directory / TRAINED, {"seconds": before + time.monotonic() - began})
    for file, recipe in recipes.items():
        began = time.monotonic()
        scores = scores_folder(directory, recipe)
        evaluate_run(directory, settings=EvaluationSettings().over(recipe.evaluate), to=scores)
        if is_first_rank():
            evaluation = recipe.evaluate.model_dump(mode="json")
            write_json(
                scores / DONE,
                {"evaluate": evaluation, "seconds": time.monotonic() - began, "results_version": RESULTS_VERSION},
            )
            file.unlink()


def by_directory(runs: Sequence[StudyRun]) -> list[list[StudyRun]]:
    """Return the runs that are not done, grouped by training."""
    groups: dict[Path, list[StudyRun]] = {}
    for run in runs:
        if run.seconds is None:
            groups.setdefault(run.directory, []).append(run)
    return list(groups.values())


def make_runs(runs: Sequence[StudyRun], jobs: int = 1) -> list[Failure]:
    """Train and score the runs that are not done.

    Args:
        runs: The planned runs.
        jobs: Number of runs at a time, which share the cores equally.

    Returns:
        The runs that failed, with the last line of their logs.

    Raises:
        Stopped: On Ctrl-C or SIGTERM; completed runs are kept.
    """
    groups = by_directory(runs)
    done_before = len(runs) - sum(len(group) for group in groups)
    failures: list[Failure] = []
    workers = _Workers(jobs)
    with progress_bar() as bar, workers, ThreadPoolExecutor(jobs) as pool:
        task = bar.add_task("runs", total=len(runs), completed=done_before, note="")
        pending: dict[Future[str | None], list[StudyRun]] = {pool.submit(workers.make, g): g for g in groups}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED, timeout=0.5)
            for future in done:
                group = pending.pop(future)
                reason = future.result()
                if reason is not None:
                    if workers.stopped:
                        continue
                    for run in (run for run in group if run.seconds is None):
                        failures.append(Failure(run, reason))
                        console.print(f"failed: {run.name}: {reason} (see {run.log})", style="yellow")
                bar.advance(task, len(group))
            bar.update(task, note=" · ".join(workers.running()))
    if workers.stopped:
        raise Stopped(workers.stopped)
    return failures


class _Workers:
    """The processes of the current runs; signals to this process are passed on to them."""

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

    def running(self) -> list[str]:
        """Return the names of the current runs."""
        with self._lock:
            return list(self._processes)

    def make(self, group: Sequence[StudyRun]) -> str | None:
        """Make the runs of one training; return None, or the reason why they failed."""
        return self._call(group[0], make_command(group))

    def _call(self, run: StudyRun, words: Sequence[str]) -> str | None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads)}
        with run.log.open("ab") as file:
            with self._lock:
                if self.stopped:
                    return "stopped"
                # In a new session, so that a Ctrl-C at the terminal reaches the run once, through this process.
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


def make_command(group: Sequence[StudyRun]) -> list[str]:
    """Write the resolved recipes of one training's runs next to their directory; return the command that makes them."""
    directory = group[0].directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    files = [directory.with_suffix(f".{run.scores.name}.yaml") for run in group]
    for file, run in zip(files, group, strict=True):
        write_text(file, run.recipe.to_yaml())
    return ["study", "make", *map(str, files), "--to", str(directory)]


def _last_line(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"
