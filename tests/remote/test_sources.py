"""Corpora from addresses: the same documents as from files, copied and in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.data.readers import READERS
from tests.data.sample_sources import write_every_format
from tests.data.test_in_place import REFERRED, write_long_texts
from tests.remote.conftest import forget
from tests.remote.server import Store

FORMATS = [name for name in READERS if name != "hub"]


@pytest.mark.parametrize("format_", FORMATS)
def test_documents_are_those_of_the_same_files(s3: Store, tmp_path: Path, format_: str) -> None:
    patterns = write_every_format(tmp_path / "from")
    write_long_texts(tmp_path / "from" / "text")
    s3.upload(tmp_path / "from", "s3://data/from")
    options: dict[str, Any] = {}
    if format_ == "mmc4":
        options = {"pictures": str(tmp_path / "from" / "mmc4" / "images")}
    at = [pattern.replace(str(tmp_path), "s3://data") for pattern in patterns[format_]]
    build_from(format_, patterns[format_], tmp_path / "local", workers=1, options=options)
    options = {name: value.replace(str(tmp_path), "s3://data") for name, value in options.items()}
    for name, in_place in (("copied", False), ("referring", True)):
        build_from(format_, at, tmp_path / name, workers=1, options=options, in_place=in_place)
    local, copied, referring = (Split(tmp_path / name / "train") for name in ("local", "copied", "referring"))
    assert copied.content_hash == referring.content_hash == local.content_hash
    for name in ("read", "documents", "images", "skipped", "lost", "changed"):
        assert copied.info[name] == local.info[name] == referring.info[name]
    assert sum(entry["count"] for entry in copied.info["unread"].values()) == sum(
        entry["count"] for entry in local.info["unread"].values()
    )
    assert (referring.info["located"]["pictures"], referring.info["located"]["texts"]) == REFERRED[format_]
    forget()
    assert list(referring) == list(copied) == list(local)
    s3.requests.clear()
    assert list(referring) == list(local)
    assert s3.gets() == []  # all is in the cache
    referring.check_sources()
    assert np.array_equal([len(d.parts) for d in referring], [len(d.parts) for d in local])
