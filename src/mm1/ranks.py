"""Which of several processes (ranks) this one is, as `torchrun` and `mm1 launch` say it in the environment."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def own_rank() -> int:
    """Return this process's number among all; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number on its machine, which is also that of its GPU; 0 where it is alone."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Return how many processes there are in all; 1 where this one is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_rank() -> bool:
    """Return whether this process is the one that prints, logs and prepares."""
    return own_rank() == 0


def end_process(code: int) -> NoReturn:
    """End this process at once, without waiting for its threads: one may wait in a collective for a lost rank."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def end_rank(code: int) -> NoReturn:
    """End a rank that has done its work: wait for its threads, run what is registered for the end, and leave Python.

    `multiprocessing` ends its own processes so too. The end of the interpreter is left out: gloo's threads outlive
    `destroy_process_group` as long as anything refers to their group (a mesh, a sharded model), and one of them may
    give up the tensor of the last collective only now. It then asks for the interpreter's lock, Python ends the thread
    instead, and C++ aborts the process: "terminate called without an active exception" after a finished run
    (https://github.com/pytorch/pytorch/issues/190489).
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls first at its end
        atexit._run_exitfuncs()
    finally:
        end_process(code)
