"""Where the units of a job are worked on: this machine's processes, or a Ray cluster.

An engine runs calls in any order and says when each is done. A call that failed ends the job; what is done stays.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from mm1.errors import UserError

Call = Callable[[], None]
Engine = Callable[[Sequence[Call], int | None, Callable[[], None]], None]
"""From calls (that can be pickled), the number of workers (None: all there are), and what to call after each."""


class WorkerDied(Exception):  # noqa: N818 - it says what happened
    """A process died while it worked."""


def run_in_processes(calls: Sequence[Call], workers: int | None, done: Callable[[], None]) -> None:
    """Run calls in processes of this machine; in this one if there is but one worker or call.

    Raises:
        WorkerDied: If a process died.
    """
    workers = min(workers or os.cpu_count() or 1, len(calls))
    if workers <= 1:
        for call in calls:
            call()
            done()
        return
    pool = ProcessPoolExecutor(workers, _context(), initializer=_end_with_parent)
    try:
        for future in as_completed([pool.submit(call) for call in calls]):
            future.result()
            done()
    except BrokenProcessPool:
        raise WorkerDied from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes begin: not forked from this one, whose threads (Arrow's, torch's) don't survive that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mm1.data.clean.job"])  # imported once, for all pools
    return context


def _end_with_parent() -> None:
    """Let this process end at Ctrl-C without a word, and when the one that started it has died, however it died."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_on_ray(calls: Sequence[Call], workers: int | None, done: Callable[[], None]) -> None:
    """Run calls as Ray tasks, one processor each: on the cluster at hand, or on this machine if there is none.

    Sources and corpora must lie on a file system that all machines share, under the same absolute paths.

    Raises:
        UserError: If Ray isn't installed.
        WorkerDied: If a worker died, and again when Ray tried anew.
    """
    try:
        import ray
    except ImportError:
        raise UserError("engine 'ray' needs Ray: install it with `pip install 'mm1[ray]'`") from None
    with contextlib.nullcontext() if ray.is_initialized() else ray.init(log_to_driver=False):
        task = ray.remote(num_cpus=1)(_call)
        waiting = iter(calls)
        at_once = workers or max(1, int(ray.cluster_resources().get("CPU", 1))) * 2
        running = [task.remote(call) for call in islice(waiting, at_once)]
        try:
            while running:
                (finished,), running = ray.wait(running, num_returns=1)
                ray.get(finished)
                done()
                running += [task.remote(call) for call in islice(waiting, 1)]
        except ray.exceptions.WorkerCrashedError:
            raise WorkerDied from None
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        finally:
            for unfinished in running:
                ray.cancel(unfinished)


def _call(call: Call) -> None:
    call()


ENGINES: dict[str, Engine] = {"processes": run_in_processes, "ray": run_on_ray}
