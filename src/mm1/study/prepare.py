"""Calls a study's `first` commands, which make what its runs share: corpora, encoders, base models.

A command without `{seed}` runs alone, on all cores, with its output at the terminal. Commands with `{seed}` that follow
one another are a chain for each seed; several seeds' chains run at a time, with their output in logs.
"""

from __future__ import annotations

import itertools
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from mm1.errors import Stopped, UserError
from mm1.progress import console, progress_bar
from mm1.study.plan import StudyRun, plan_runs, weights_digest
from mm1.study.processes import Processes
from mm1.study.schema import Study, for_seed


def prepared_runs(studies: Sequence[Study], store: Path, jobs: int = 1) -> list[list[StudyRun]]:
    """Return the runs of each study. Where any run is not done, call the study's `first` commands before.

    Args:
        studies: The studies. A command that several of them share is called once.
        store: See `plan_runs`. The logs of commands for a seed come into its folder `first`.
        jobs: Number of seeds at a time, which share the cores equally.

    Raises:
        UserError: If one of the `first` commands failed, or an arm doesn't fit the recipe.
        Stopped: On Ctrl-C or SIGTERM.
    """
    called: set[str] = set()
    prepared = []
    for study in studies:
        runs = plan_runs(study, store)
        if study.first and any(run.seconds is None for run in runs):
            for stage in stages(study):
                chains = [left for chain in stage if (left := [each for each in chain if each not in called])]
                if jobs > 1 and len(chains) > 1:
                    _call_chains(study, chains, store / "first", jobs)
                else:
                    for command in itertools.chain.from_iterable(chains):
                        _call_at_terminal(study, command)
                called.update(*stage)
            weights_digest.cache_clear()  # runs' names depend on the weights that they start from
            runs = plan_runs(study, store)
        prepared.append(runs)
    return prepared


def stages(study: Study) -> Iterator[list[list[str]]]:
    """Yield the commands of `first` as stages: one command, or a chain of commands for each seed."""
    for of_a_seed, group in itertools.groupby(study.first, lambda command: "{seed}" in command):
        commands = list(group)
        if of_a_seed:
            yield [[for_seed(command, seed) for command in commands] for seed in study.seeds]
        else:
            yield from ([[command]] for command in commands)


def _call_at_terminal(study: Study, command: str) -> None:
    """Call a command. Ctrl-C at the terminal reaches its process too, and it saves before it ends."""
    console.rule(f"mm1 {command}", align="left")
    process = subprocess.Popen([sys.executable, "-m", "mm1", *shlex.split(command)])
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
    if code != 0:
        raise UserError(f"study {study.name}: `mm1 {command}` failed: read its output above")


def _call_chains(study: Study, chains: Sequence[Sequence[str]], logs: Path, jobs: int) -> None:
    """Call the chains of several seeds at a time. If one fails, it is named at once and the others go on."""
    processes = Processes(jobs)
    failures: list[str] = []

    def call(chain: Sequence[str]) -> None:
        for command in chain:
            log = logs / f"{_slug(command)}.log"
            reason = processes.call(f"mm1 {command}", shlex.split(command), log)
            if reason is not None:
                failures.append(f"study {study.name}: `mm1 {command}` failed: {reason} (see {log})")
                if not processes.stopped:
                    console.print(failures[-1], style="yellow")
                return
            bar.advance(task)

    with progress_bar(notes_below=True) as bar, processes, ThreadPoolExecutor(jobs) as pool:
        task = bar.add_task("what the runs share", total=sum(map(len, chains)), note="")
        pending = {pool.submit(call, chain) for chain in chains}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED, timeout=0.5)
            for future in done:
                future.result()
            bar.update(task, note="\n  ".join(processes.running()))
    processes.raise_if_stopped()
    if failures:
        raise UserError(failures[0])


def _slug(command: str) -> str:
    """Return a command as a file's name, such as `encoder-clip-hands-set-seed-0`."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", command).strip("-")[:240]
