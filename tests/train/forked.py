"""`mm1` in processes forked from one that has imported everything: a start takes milliseconds instead of seconds.

Such a process is the command line in all but the start: arguments, environment, exit code, signals.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]
WATCHDOG_SECONDS = 240
_servers: list[int] = []
_starting = threading.Lock()
_SAVING = ("mm1/train/checkpoint.py", "checkpoint/hf_storage.py", "checkpoint/filesystem.py")
"""Files whose lines are counted, so that a process can be killed before any of them."""


def mm1(
    *arguments: object, program: Callable[[], object] | None = None, environment: Mapping[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `mm1 ARGUMENTS` in this folder (see `start`), and return how it ended and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        process = start(arguments, log, program=program, environment=environment)
        (code,) = end([process])
        said, printed = log.read_text(), log.with_name("log.out").read_text()
    return subprocess.CompletedProcess(["mm1", *map(str, arguments)], code or 0, printed, said)


class ForkedPopen:
    """The part of `subprocess.Popen` that `mm1.study.processes` uses for `python -m mm1 ARGUMENTS`, by forks."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        start_new_session: bool = False,
    ) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "mm1"]
        self._folder = tempfile.TemporaryDirectory()
        self._log, self._stderr = Path(self._folder.name, "log"), stderr
        self._process = start(command[3:], self._log, environment=env)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self) -> int | None:
        """Wait for its end; return its exit code, and write what it said to the given file."""
        (code,) = end([self._process])
        if self._stderr is not None:
            self._stderr.write(self._log.read_bytes())
        self._folder.cleanup()
        return code


def start(
    arguments: Sequence[object],
    log: Path,
    *,
    program: Callable[[], object] | None = None,
    kill_at_line: int | None = None,
    stop_at_step: int | None = None,
    environment: Mapping[str, object] | None = None,
) -> BaseProcess:
    """Start `mm1 ARGUMENTS` in this folder.

    Args:
        arguments: Of the command line.
        log: File for standard error, and beside it `.out` for standard output; `.rows`: a digest of every sequence
            trained on; `.lines`: how many lines of the code that saves and loads checkpoints were run.
        program: A module's function that is called in place of the command line's.
        kill_at_line: The process kills itself before this line of that code, in whichever thread; 0: never.
        stop_at_step: The process asks itself to stop (SIGTERM) when so many steps are done; it makes one more.
        environment: Variables, beside those of this process.
    """
    context = _server()
    arguments = [str(argument) for argument in arguments]
    where = _here(environment or {})
    process = context.Process(target=_main, args=(arguments, where, log, program, kill_at_line, stop_at_step))
    process.start()
    return process


def start_ranks(
    count: int,
    arguments: Sequence[object],
    log: Path,
    *,
    program: Callable[[], object] | None = None,
    kill_at_line: int | None = None,
    stop_at_step: int | None = None,
    environment: Mapping[str, object] | None = None,
) -> list[BaseProcess]:
    """Start `mm1 ARGUMENTS` as so many ranks, each with a log of its own, `LOG.RANK`."""
    return [
        start(
            arguments,
            Path(f"{log}.{rank}"),
            program=program,
            kill_at_line=kill_at_line,
            stop_at_step=stop_at_step,
            environment={**(environment or {}), **of_rank},
        )
        for rank, of_rank in enumerate(environments(count))
    ]


def on_ranks(count: int, function: Callable[..., None], *arguments: object) -> None:
    """Call a function of a module in so many ranks of this folder; an exception in any of them fails the test."""
    context = _server()
    places = [_here(environment) for environment in environments(count)]
    processes = [context.Process(target=_call, args=(place, function, arguments)) for place in places]
    for process in processes:
        process.start()
    assert end(processes) == [0] * count


def environments(count: int) -> list[dict[str, object]]:
    """Return the variables that torchrun would give each rank."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]


def end(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Wait for processes and return their exit codes; one that hangs is killed and fails the test."""
    for process in processes:
        process.join(WATCHDOG_SECONDS)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, "a process hung"
    return [process.exitcode for process in processes]


def batches(log: Path, ranks: int, batch_size: int) -> list[list[str]]:
    """Return the digests of the sequences of every step that ranks made together, in any order within a step."""
    rows = [Path(f"{log}.{rank}.rows").read_text().split() for rank in range(ranks)]
    size = batch_size // ranks
    starts = range(0, len(rows[0]), size)
    return [sorted(row for mine in rows for row in mine[at : at + size]) for at in starts]


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    with _starting:
        if not _servers:  # one that another test left has its preloads, not ours
            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # private: typeshed leaves it out
            context.set_forkserver_preload(["tests.train.forked", "tests.train.forked_parent"])
            # The server finds `tests` by the path, and is silent about modules that it does not find. A study's threads
            # call this too, so the folder of this process must stay what it is.
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
                forkserver.ensure_running()
            _servers.append(1)
    return context


def _here(environment: Mapping[str, object]) -> tuple[Path, dict[str, str]]:
    """Return this folder and this process's variables: the server's are those of its start, perhaps another test's."""
    given = {name: str(value) for name, value in environment.items()}
    return Path.cwd(), {**os.environ, "OMP_NUM_THREADS": "1", **given}


def _go(where: tuple[Path, dict[str, str]]) -> None:
    os.chdir(where[0])
    os.environ.clear()
    os.environ.update(where[1])


def _call(where: tuple[Path, dict[str, str]], function: Callable[..., None], arguments: Sequence[object]) -> None:
    _go(where)
    import torch

    torch.set_num_threads(1)
    function(*arguments)


def _main(
    arguments: list[str],
    where: tuple[Path, dict[str, str]],
    log: Path,
    program: Callable[[], object] | None,
    kill_at_line: int | None,
    stop_at_step: int | None,
) -> None:
    _go(where)
    with log.open("w") as said, Path(f"{log}.out").open("w") as printed:
        os.dup2(said.fileno(), 2)
        os.dup2(printed.fileno(), 1)
    import torch

    from mm1 import cli
    from mm1.progress import console
    from mm1.train import pretrain

    if "COLUMNS" in os.environ:  # read when the console was made, in the process that this one is forked from
        console.width = int(os.environ["COLUMNS"])

    torch.set_num_threads(1)
    pretrain.language_model_loss = _recorded(pretrain.language_model_loss, Path(f"{log}.rows"))
    if stop_at_step is not None:
        _stop_at(stop_at_step)
    write_lines = _count_lines(kill_at_line, Path(f"{log}.lines")) if kill_at_line is not None else lambda: None
    atexit.register(write_lines)  # where a rank ends, which does not come back here
    sys.argv = ["mm1", *arguments]
    try:
        (program or cli.main)()
    finally:
        write_lines()


def _recorded(loss: Callable[..., Any], file: Path) -> Callable[..., Any]:
    def recorded(model: Any, processor: Any, batch: Any, *rest: Any) -> Any:
        with file.open("a") as stream:
            for row in batch["input_ids"]:
                stream.write(hashlib.sha1(row.numpy().tobytes()).hexdigest() + "\n")
        return loss(model, processor, batch, *rest)

    file.unlink(missing_ok=True)
    return recorded


def _stop_at(number: int) -> None:
    from mm1.train.loop import Trainer

    step = Trainer._step

    def stopping(self: Trainer, at: int, *rest: Any) -> int:
        if at == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, at, *rest)

    setattr(Trainer, "_step", stopping)  # noqa: B010 - mypy refuses a method that is assigned to


def _count_lines(kill_at: int, file: Path) -> Callable[[], object]:
    lines = 0
    is_saving = cache(lambda file: any(part in file for part in _SAVING))  # asked at every call of a function

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if not is_saving(frame.f_code.co_filename):
            return None
        if event == "line":
            lines += 1
            if lines == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    return lambda: file.write_text(json.dumps(lines))
