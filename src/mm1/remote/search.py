"""What lies below an address, and what patterns of addresses match."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from glob import has_magic

from mm1.remote.errors import MissingBucketError, MissingError, RemoteError
from mm1.remote.store import attempt, file_system, missing_bucket

_AT_ONCE = 32


def kinds_of(addresses: Sequence[str]) -> dict[str, str | None]:
    """Return what lies at addresses, many of which are asked for at once: `file`, `directory`, or None.

    Raises:
        RemoteError: If a bucket is missing, or a store doesn't tell.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(addresses, pool.map(_kind_of, addresses), strict=True))


def _kind_of(address: str) -> str | None:
    try:
        kind = attempt(lambda: file_system(address).info(address)["type"], address)
    except MissingBucketError:
        raise
    except MissingError:
        return None
    return "directory" if kind == "directory" else "file"


def below(address: str) -> list[str]:
    """Return the addresses of all objects below one, each folder's own before those of the folders in it.

    Names that begin with a dot are hidden.

    Raises:
        RemoteError: If the store doesn't list them.
    """
    store = file_system(address)
    top = store._strip_protocol(address).rstrip("/") + "/"
    found = attempt(lambda: store.find(address, detail=True), address)
    names = [name for name, info in found.items() if info.get("type") != "directory" and not name.endswith("/")]
    parts = {name: name.removeprefix(top).split("/") for name in names}
    seen = [name for name in names if not any(part.startswith(".") for part in parts[name])]
    seen.sort(key=lambda name: (parts[name][:-1], parts[name][-1]))
    return [_address(name, address) for name in seen]


def matches(pattern: str) -> dict[str, bool]:
    """Return the addresses that a pattern with `*`, `?` or `[...]` matches, in order, and whether each is a folder.

    Raises:
        RemoteError: If its bucket is missing, or the store doesn't list.
    """
    pattern = re.sub(r"/\*\*/?$", "", pattern)  # a folder is taken with all below it
    if not has_magic(pattern):
        return {pattern: True} if _kind_of(pattern) == "directory" else {}
    store = file_system(pattern)
    found = attempt(lambda: store.glob(pattern, detail=True), pattern)
    missing = None if found else missing_bucket(pattern)
    if missing is not None:
        raise missing
    names = sorted(found, key=lambda name: name.split("/"))
    return {_address(name, pattern): found[name]["type"] == "directory" for name in names}


def common_folder(addresses: Sequence[str]) -> str:
    """Return the address that all addresses lie below: of their folders, the part that they share.

    Raises:
        RemoteError: If they are of different stores.
    """
    protocols = {address.partition("://")[0] for address in addresses}
    if len(protocols) > 1:
        found = ", ".join(sorted(protocols))
        raise RemoteError(f"the sources lie in different stores ({found}): build them one by one")
    folders = [os.path.dirname(address.partition("://")[2]) for address in addresses]
    return f"{protocols.pop()}://{os.path.commonpath(folders)}"


def _address(name: str, like: str) -> str:
    """Return the address of what a store calls by a name, with the protocol of another address."""
    return name if "://" in name else f"{like.partition('://')[0]}://{name.lstrip('/')}"


@lru_cache(maxsize=4)
def names_in(folder: str) -> frozenset[str]:
    """Return the addresses of the objects in a folder itself, listed once in this process.

    Raises:
        RemoteError: If the store doesn't list them.
    """
    found = attempt(lambda: file_system(folder).ls(folder, detail=False), folder)
    return frozenset(_address(name, folder) for name in found)
