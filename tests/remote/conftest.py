"""One server of S3's protocol for all tests, which no credentials of the developer reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm1.remote import objects, search, store
from tests.remote.server import Store, serve


@pytest.fixture(scope="session")
def server() -> Iterator[Store]:
    with serve() as started:
        yield started


@pytest.fixture
def s3(server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server with an empty bucket `data`, a cache of the test's own, and quick tries."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "FSSPEC_", "MM1_CACHE", "HF_TOKEN")):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "MM1_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store, "PAUSES", (0.05, 0.05))
    forget()
    server.rule = lambda request: None
    server.put("s3://data")
    yield server
    server.rule = lambda request: None
    server._ask("POST", "s3://moto-api/reset")
    server.requests.clear()
    forget()


def forget() -> None:
    """Forget what this process knows of stores, as a new one does."""
    import s3fs

    from mm1.data import sources

    store._file_systems.clear()
    s3fs.S3FileSystem.clear_instance_cache()
    objects._shared.cache_clear()
    objects._ahead.clear()
    search.names_in.cache_clear()
    sources._opened.cache_clear()
    sources._row_group.cache_clear()
