"""Fetching and reading packages of Debian; apt-get is a script that this file writes, dpkg-deb is the real one."""

import hashlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.fetch.debian import fetch_deb, package_name, read_deb, read_licence
from tests.corpora.fake_sources import copyright_file, needs_dpkg, write_deb


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def put_apt_get(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a script of the shell be the apt-get that is found first."""
    program = folder / "bin" / "apt-get"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


CONTENT = hashlib.sha256(b"content\n").hexdigest()


def put_apt_cache(folder: Path, sha256: str) -> None:
    """Let apt's lists give a hash for what `tiny-data` is."""
    program = folder / "bin" / "apt-cache"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\n[ "$*" = "show tiny-data=1:2.0-1" ] && echo "SHA256: {sha256}"\n')
    program.chmod(0o755)


@pytest.mark.parametrize(("listed", "message"), [("0" * 64, "its SHA-256 is"), ("", "no SHA-256 is pinned for it")])
def test_what_the_lists_do_not_vouch_for_is_refused(
    listed: str, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_apt_cache(tmp_path, listed)
    put_apt_get(tmp_path, monkeypatch, 'echo content > "$3_1%3a2.0-1_all.deb"')
    with pytest.raises(UserError, match=message):
        fetch_deb("tiny-data")
    assert list((data / "downloads").iterdir()) == []


def test_fetches_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    put_apt_cache(tmp_path, CONTENT)
    put_apt_get(tmp_path, monkeypatch, f'echo "$LC_ALL $@" >> {calls}; echo content > "$3_1%3a2.0-1_all.deb"')
    path = fetch_deb("tiny-data")
    assert path == data / "downloads" / "tiny-data_1%3a2.0-1_all.deb"
    assert package_name(path) == "tiny-data 1:2.0-1"
    assert fetch_deb("tiny-data") == path
    assert calls.read_text() == "C download --quiet tiny-data\n"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("E: Unable to locate package tiny-data", "run `apt-get update`"),
        ("E: Failed to fetch http://x/t.deb  404  Not Found [IP: 1.2.3.4 80]", "run `apt-get update`"),
        ("E: Failed to fetch http://x/t.deb  Could not connect to x:80", "connect to the network"),
        ("E: Failed to fetch http://x/t.deb  Temporary failure resolving 'x'", "connect to the network"),
        ("E: You don't have enough free space in /x", "no space left"),
        ("E: something else", r"(something else): check that `apt-get download tiny-data` works"),
        ("", "no reason given"),
    ],
)
def test_failure_is_one_sentence(
    said: str, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_apt_get(tmp_path, monkeypatch, f'echo half > "$3_1_all.deb"; echo "{said}" >&2; exit 100')
    with pytest.raises(UserError) as caught:
        fetch_deb("tiny-data")
    assert message in str(caught.value)
    assert str(caught.value).startswith("tiny-data can't be downloaded")
    assert "\n" not in str(caught.value)
    assert list((data / "downloads").iterdir()) == []


def test_other_systems(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        UserError,
        match=r"needs apt-get, which is not on this machine: .* `apt-get download tiny-data` .* put the file into",
    ):
        fetch_deb("tiny-data")
    with pytest.raises(UserError, match="install the package dpkg"):
        list(read_deb(data / "tiny-data_1_all.deb", lambda name: True))


@needs_dpkg
def test_reads_files_but_not_links(tmp_path: Path) -> None:
    path = write_deb(tmp_path / "tiny-data_1_all.deb", {"usr/share/x/a.txt": b"a", "usr/share/x/b.txt": b"b" * 10**6})
    assert dict(read_deb(path, lambda name: name.endswith(".txt"))) == {
        "usr/share/x/a.txt": b"a",
        "usr/share/x/b.txt": b"b" * 10**6,
    }
    assert list(read_deb(path, lambda name: False)) == []


@needs_dpkg
def test_reading_may_stop_early(tmp_path: Path) -> None:
    files = {f"usr/share/x/{number}": b"x" * 10**6 for number in range(4)}
    path = write_deb(tmp_path / "tiny-data_1_all.deb", files)
    members = read_deb(path, lambda name: True)
    assert isinstance(members, Generator)
    assert next(members)[1] == b"x" * 10**6
    members.close()


@needs_dpkg
@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_damaged_package(kept: int, tmp_path: Path) -> None:
    path = write_deb(tmp_path / "tiny-data_1_all.deb", {"usr/share/x/a": bytes(range(256)) * 99})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="can't be read: delete it to download it again"):
        list(read_deb(path, lambda name: True))


@needs_dpkg
def test_licence(tmp_path: Path) -> None:
    path = write_deb(tmp_path / "tiny-data_1%3a2_all.deb", copyright_file("tiny-data", "GPL-2"))
    assert read_licence(path) == "GPL-2 (copyright file of tiny-data 1:2)"
    with pytest.raises(UserError, match="doesn't state the licence in the expected form"):
        read_licence(path, "(public domain)")
    shutil.copy(path, tmp_path / "other_1_all.deb")
    with pytest.raises(UserError, match="usr/share/doc/other/copyright"):
        read_licence(tmp_path / "other_1_all.deb")
