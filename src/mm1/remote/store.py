"""The stores behind addresses, through fsspec: what fails is tried again, what never answers is left.

Credentials, endpoints, regions and proxies are the libraries' own: their variables and files, and fsspec's
configuration (`FSSPEC_S3`, ~/.config/fsspec). Nothing of it passes through here.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import fsspec

from mm1.errors import UserError
from mm1.remote.errors import LIBRARIES, MissingBucketError, MissingError, may_pass, protocol_of, told

T = TypeVar("T")

PAUSES = (1.0, 4.0)
"""Seconds between tries, at most; each is drawn, so that processes that failed together don't come back together. The
libraries try again too, s3fs five times within seconds; this outlasts a store's bad moment."""
SLOWEST = 60.0
"""Seconds that a try may take: a request is of a few megabytes at most."""

_file_systems: dict[tuple[int, str], Any] = {}


def file_system(address: str) -> Any:
    """Return the fsspec file system of an address, one for each process.

    Args:
        address: Such as `s3://bucket/key`.

    Raises:
        UserError: If its library isn't installed, or there is none; or if the address holds a password.
    """
    protocol = protocol_of(address)
    _refuse_password(address)
    # Those that a forked process has from its parent stay, unused: to clean them up would end the parent's connections.
    key = (os.getpid(), protocol)
    if key not in _file_systems:
        _file_systems[key] = _open(protocol, address)
    return _file_systems[key]


def _open(protocol: str, address: str) -> Any:
    library = LIBRARIES.get(protocol)
    try:
        # A listing that is kept would hide that an object has changed.
        return fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError as error:
        remedy = f"pip install 'mm1[{library.extra}]'" if library and library.extra else str(error)
        name = library.name if library else "a package"
        raise UserError(f"{address}: {name} is needed to read {protocol}://: {remedy}") from error
    except ValueError as error:
        if protocol in fsspec.available_protocols():
            raise UserError(f"{address}: {protocol}:// can't be read ({error}): check its configuration") from error
        known = ", ".join(f"{name}://" for name in LIBRARIES)
        raise UserError(f"{address}: nothing reads {protocol}://: use one of {known}") from error


def _refuse_password(address: str) -> None:
    host = address.partition("://")[2].partition("/")[0]
    if ":" in host.rpartition("@")[0]:
        shown = address.replace(host.rpartition("@")[0], "...")
        raise UserError(f"{shown}: a password in an address would be written to files: use the store's own credentials")


def attempt(call: Callable[[], T], address: str, *, in_time: bool = True) -> T:
    """Return what a call returns, which is tried again while another try may help.

    Args:
        call: Asks the store. It may go on in the background after it has taken too long.
        address: What it asks for, for messages.
        in_time: Whether a try may take no more than `SLOWEST`.

    Raises:
        MissingError: If nothing is there.
        RemoteError: If it can't be read otherwise.
    """
    for pause in (*PAUSES, None):
        try:
            return _in_time(call, SLOWEST) if in_time else call()
        except UserError:
            raise
        except Exception as error:  # the libraries' have no common base
            if pause is None or not may_pass(error):
                sentence = told(error, address, len(PAUSES) + 1)
                if isinstance(sentence, MissingError):
                    sentence = missing_bucket(address) or sentence
                raise sentence from error
        time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
    raise AssertionError


def _in_time(call: Callable[[], T], seconds: float) -> T:
    """Return what a call returns; raise `TimeoutError` when it takes too long, as no library does for all it does."""
    box: Future[T] = Future()

    def work() -> None:
        try:
            box.set_result(call())
        except BaseException as error:
            box.set_exception(error)

    threading.Thread(target=work, daemon=True, name="mm1-remote").start()
    try:
        return box.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:.0f} seconds") from None


def missing_bucket(address: str) -> MissingBucketError | None:
    """Return the sentence about the bucket of an address, if there is none of this name."""
    protocol = protocol_of(address)
    library = LIBRARIES.get(protocol)
    bucket = address.partition("://")[2].partition("/")[0]
    if library is None or not library.has_buckets:
        return None
    try:
        if _in_time(lambda: file_system(address).exists(f"{protocol}://{bucket}"), SLOWEST):
            return None
    except Exception:  # whoever may not ask is told of the object
        return None
    return MissingBucketError(f"{address}: there is no bucket '{bucket}': check its name, and the endpoint and region")
