"""Where the units of a job are worked on: this machine's processes, or a Ray cluster.

An engine runs calls in any order and says when each is done. A call that failed ends the job; what is done stays.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from mm1.errors import UserError

if TYPE_CHECKING:
    from ray import ObjectRef

Call = Callable[[], None]
Engine = Callable[[Sequence[Call], int | None, Callable[[], None]], None]
"""From calls (that can be pickled), the number of workers (None: all there are), and what to call after each."""

SomeCall = TypeVar("SomeCall", bound=Call)
Submit = Callable[[Call], "Future[None]"]

_RETRIES = 3
"""Times that Ray tries a call again whose worker died; Ray Data would do so for ever."""


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
    pool = _pool(workers)
    try:
        for future in as_completed([pool.submit(call) for call in calls]):
            future.result()
            done()
    except BrokenProcessPool:
        raise WorkerDied from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, _context(), initializer=_end_with_parent)


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes begin: not forked from this one, whose threads (Arrow's, torch's) don't survive that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mm1.clean.job"])  # imported once, for all pools
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


def run_while_ready(
    engine: str, next_call: Callable[[], SomeCall | None], workers: int | None, done: Callable[[SomeCall], None]
) -> None:
    """Run calls of which some can begin only when others are done.

    Args:
        engine: One of `ENGINES`.
        next_call: Returns a call that can begin now, None if none can; asked again after each that is done.
        workers: Calls at a time; None: as many as there are processors.
        done: Takes each call that is done.

    Raises:
        UserError: If the engine can't be used.
        WorkerDied: If a process died.
    """
    if engine == "processes" and (workers := workers or os.cpu_count() or 1) == 1:
        while (call := next_call()) is not None:
            call()
            done(call)
        return
    running: dict[Future[None], SomeCall] = {}
    with _submitter(engine, workers) as (submit, places):
        while True:
            while len(running) < places and (call := next_call()) is not None:
                running[submit(call)] = call
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                done(running.pop(future))


@contextlib.contextmanager
def _submitter(engine: str, workers: int | None) -> Iterator[tuple[Submit, int]]:
    """Give what begins a call, and how many calls can run at a time."""
    if engine == "ray":
        with _ray_cluster() as ray:
            remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_call)
            try:
                yield lambda call: remote.remote(call).future(), workers or int(ray.cluster_resources()["CPU"])
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                raise WorkerDied from None
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
        return
    assert workers is not None
    pool = _pool(workers)
    try:
        yield pool.submit, workers
    except BrokenProcessPool:
        raise WorkerDied from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _call(call: Call) -> None:
    call()


def run_on_ray(calls: Sequence[Call], workers: int | None, done: Callable[[], None]) -> None:
    """Run calls by Ray Data, one block and one processor each: on the cluster at hand, or on this machine if none is.

    Sources and corpora must lie on a file system that all machines share, under the same absolute paths.

    Raises:
        UserError: If Ray Data isn't installed.
        WorkerDied: If a worker died, and again when Ray tried anew.
    """
    with _ray_cluster() as ray:
        units = ray.data.range(len(calls), override_num_blocks=len(calls))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # hence ray<2.64 in pyproject.toml
            outcomes = units.map(
                partial(_outcome, ray.put(list(calls))),
                compute=ray.data.TaskPoolStrategy(min(workers or len(calls), len(calls))),
                num_cpus=1,
                max_retries=_RETRIES,
            )
        outcomes.context.enable_progress_bars = False
        try:
            for outcome in outcomes.iter_rows():
                if outcome["error"]:
                    raise pickle.loads(outcome["error"])  # noqa: S301 - from our own workers
                done()
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            raise WorkerDied from None


@contextlib.contextmanager
def _ray_cluster() -> Iterator[Any]:
    """Give Ray, connected to the cluster at hand, or to this machine if none is; without its own messages.

    Raises:
        UserError: If Ray Data isn't installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("engine 'ray' needs Ray Data: install it with `pip install 'mm1[ray]'`") from None
    quiet = logging.ERROR  # the job has its own progress bar and messages
    there = ray.is_initialized()
    with contextlib.nullcontext() if there else ray.init(log_to_driver=False, logging_level=quiet):
        logging.getLogger("ray.data").setLevel(quiet)
        yield ray


def _outcome(calls: ObjectRef[list[Call]], row: dict[str, int]) -> dict[str, bytes]:
    """Run the call of a number; return what it raised, which Ray Data would wrap and add to."""
    import ray

    try:
        ray.get(calls)[row["id"]]()
    except Exception as error:
        return {"error": pickle.dumps(error)}
    return {"error": b""}


ENGINES: dict[str, Engine] = {"processes": run_in_processes, "ray": run_on_ray}
