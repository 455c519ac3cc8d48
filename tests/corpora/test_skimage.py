"""skimage: pictures whose description says that they are free, with its first line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm1.corpora import build_corpus
from mm1.data.corpus import open_split
from mm1.document import Text
from mm1.errors import UserError
from tests.corpora.fake_sources import pin, put_skimage, write_zip


def test_free_pictures_with_their_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    put_skimage(tmp_path / "downloads")
    info = build_corpus("skimage")
    [cup] = open_split("skimage/heldout")
    assert cup.id == "cup"
    assert cup.parts[1] == Text(" Coffee cup on a table.")
    assert cup.meta == {"caption": "Coffee cup on a table.", "licence": "No copyright restrictions"}
    left_out = {reason: entry["examples"] for reason, entry in info["skipped"].items()}
    assert left_out == {
        "its description names no licence": ["moon"],
        "no picture in the package": ["eagle", "pair"],
    }


def test_another_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    pin(write_zip(tmp_path / "downloads" / "scikit_image-0.26.0-py3-none-any.whl", {"skimage/__init__.py": b""}))
    with pytest.raises(UserError, match=r"it has no skimage/data/_fetchers.py: delete it to download it again"):
        build_corpus("skimage")
