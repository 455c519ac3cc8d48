import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.fetch import pip as fetch
from mm1.fetch.hashes import OWN_SUMS
from mm1.fetch.pip import fetch_sdist, fetch_wheel, read_members
from tests.corpora.fake_sources import write_tar, write_zip

# A build backend inside the source distribution, so that pip needs nothing else from an index.
PYPROJECT = b"""
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = b"""
import os
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    os.makedirs(os.path.join(folder, "tiny_data-1.2.dist-info"))
    with open(os.path.join(folder, "tiny_data-1.2.dist-info", "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: tiny-data\\nVersion: 1.2\\n")
    return "tiny_data-1.2.dist-info"
def build_wheel(*arguments, **settings):
    raise SystemExit("not built")
"""
METADATA = b"Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.2\n"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only package index."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    write_tar(
        folder / "tiny_data-1.2.tar.gz",
        {
            "tiny_data-1.2/PKG-INFO": METADATA,
            "tiny_data-1.2/pyproject.toml": PYPROJECT,
            "tiny_data-1.2/backend.py": BACKEND,
            "tiny_data-1.2/tiny/data.txt": b"from the sdist",
        },
    )
    info = "tiny_data-1.2.dist-info"
    write_zip(
        folder / "tiny_data-1.2-py3-none-any.whl",
        {
            "tiny/data.txt": b"from the wheel",
            f"{info}/METADATA": METADATA,
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        },
    )
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in folder.iterdir()]
    (tmp_path / "data" / "downloads" / OWN_SUMS).write_text("".join(sums))
    return folder


def test_fetches_sdist_through_pip_once(data: Path, index: Path) -> None:
    path = fetch_sdist("tiny-data", "1.2")
    assert path == data / "downloads" / "tiny_data-1.2.tar.gz"
    assert dict(read_members(path, lambda name: name == "tiny/data.txt")) == {"tiny/data.txt": b"from the sdist"}
    assert {file.name for file in path.parent.iterdir()} == {path.name, OWN_SUMS}
    (index / path.name).unlink()
    assert fetch_sdist("Tiny.Data", "1.2") == path


def test_fetches_wheel_through_pip(data: Path, index: Path) -> None:
    path = fetch_wheel("tiny-data", "1.2")
    assert path.parent == data / "downloads"
    assert dict(read_members(path, lambda name: name.startswith("tiny/"))) == {"tiny/data.txt": b"from the wheel"}


def test_unknown_version_is_one_sentence(data: Path, index: Path) -> None:
    pin_anything(data, "9.9")
    with pytest.raises(UserError, match=r"^tiny-data 9\.9 can't be downloaded \(No matching distribution"):
        fetch_wheel("tiny-data", "9.9")
    assert [file.name for file in (data / "downloads").iterdir()] == [OWN_SUMS]


def pin_anything(data: Path, version: str = "1.2") -> None:
    (data / "downloads").mkdir(parents=True, exist_ok=True)
    names = (f"tiny_data-{version}.tar.gz", f"tiny_data-{version}-py3-none-any.whl")
    (data / "downloads" / OWN_SUMS).write_text("".join(f"{'0' * 64}  {name}\n" for name in names))


@pytest.mark.parametrize("fetches", [fetch_sdist, fetch_wheel])
def test_a_changed_package_is_refused_before_its_build_runs(fetches, data: Path, index: Path) -> None:
    pin_anything(data)
    marker = data / "ran"
    backend = BACKEND + f"open({str(marker)!r}, 'w')\n".encode()
    members = {"tiny_data-1.2/PKG-INFO": METADATA, "tiny_data-1.2/pyproject.toml": PYPROJECT}
    write_tar(index / "tiny_data-1.2.tar.gz", members | {"tiny_data-1.2/backend.py": backend})
    with pytest.raises(UserError, match=r"^tiny-data 1\.2: what the package index sends has SHA-256 \w{64}, which"):
        fetches("tiny-data", "1.2")
    assert not marker.exists()
    assert [file.name for file in (data / "downloads").iterdir()] == [OWN_SUMS]


def test_a_file_that_was_changed_since_is_refused(data: Path, index: Path) -> None:
    path = fetch_wheel("tiny-data", "1.2")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="its SHA-256 is .* so nothing of it is used: delete it"):
        fetch_wheel("tiny-data", "1.2")


def test_a_package_that_is_not_pinned_is_not_downloaded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_pip_download", lambda *_: pytest.fail("it was"))
    with pytest.raises(UserError, match="no SHA-256 is pinned for its .whl file"):
        fetch_wheel("tiny-data", "1.2")


def test_a_wrong_line_of_the_users_hashes_is_named(data: Path) -> None:
    (data / "downloads").mkdir(parents=True)
    (data / "downloads" / OWN_SUMS).write_text("# mine\nabc  tiny\n")
    with pytest.raises(UserError, match="SHA256SUMS, line 2: write what `sha256sum FILE` prints"):
        fetch_wheel("tiny-data", "1.2")


def test_no_network_is_one_sentence(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    # Port 9 of this very machine: refused at once.
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    pin_anything(data)
    with pytest.raises(UserError, match="package index can't be reached") as caught:
        fetch_wheel("tiny-data", "1.2")
    assert "\n" not in str(caught.value)
    assert [file.name for file in (data / "downloads").iterdir()] == [OWN_SUMS]


@pytest.mark.parametrize("what", ["full disk", "interrupt"])
def test_nothing_half_written(what: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "tiny-data-1.2.tar.gz").write_bytes(b"half of ")
        if what == "interrupt":
            raise KeyboardInterrupt
        message = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
        return subprocess.CompletedProcess(command, 1, "", message)

    pin_anything(data)
    monkeypatch.setattr(fetch.subprocess, "run", pip)
    with pytest.raises(KeyboardInterrupt if what == "interrupt" else UserError) as caught:
        fetch_sdist("tiny-data", "1.2")
    assert [file.name for file in (data / "downloads").iterdir()] == [OWN_SUMS]
    if what == "full disk":
        assert "no space left" in str(caught.value)


def test_place_that_is_a_file(data: Path) -> None:
    data.write_text("a file, not a directory")
    with pytest.raises(UserError, match="can't be stored in it"):
        fetch_sdist("tiny-data", "1.2")


def test_longer_version_is_not_taken_for_a_shorter_one(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(data / "downloads" / "tiny-data-1.2.1.tar.gz", {"x/y": b""})
    write_tar(data / "downloads" / "tiny-data-1x2.tar.gz", {"x/y": b""})
    pin_anything(data)
    asked = []
    monkeypatch.setattr(fetch, "_pip_download", lambda *arguments: asked.append(arguments))
    with pytest.raises(UserError, match=r"not a \.tar\.gz"):
        fetch_sdist("tiny-data", "1.2")
    assert len(asked) == 1


def test_reads_plain_files_only(tmp_path: Path) -> None:
    path = tmp_path / "evil-1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("evil-1/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("evil-1/plain.txt"))
    assert list(read_members(path, lambda name: True)) == [("plain.txt", b"")]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["damaged-1.tar.gz", "damaged-1-py3-none-any.whl"])
def test_damaged_archive(name: str, tmp_path: Path) -> None:
    whole = tmp_path / name
    content = {"damaged-1/a": bytes(range(256)) * 999}
    (write_tar if name.endswith(".gz") else write_zip)(whole, content)
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"archive can't be read .* delete it"):
        list(read_members(whole, lambda name: True))


def test_oversized_member_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_MEMBER_BYTES", 10)
    path = write_zip(tmp_path / "big-1-py3-none-any.whl", {"a": b"x" * 11})
    with pytest.raises(UserError, match="its member a claims to have 11 bytes"):
        list(read_members(path, lambda name: True))
