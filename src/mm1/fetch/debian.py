"""Downloads Debian packages that contain data, through apt-get, and reads named members directly from them.

    archive = fetch_deb("wordnet-base")
    for name, content in read_deb(archive, lambda name: name.endswith("data.noun")): ...

This works without root: a package is downloaded once into `data_directory()/downloads`, never installed, and not
unpacked onto the disk. The version is the one of the system's release; a corpus records it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

from mm1.errors import UserError
from mm1.fetch.pip import fetch_once, last_error, no_room, tar_members


def fetch_deb(name: str) -> Path:
    """Return the `.deb` file of a package; download it if necessary.

    Args:
        name: The package's name.

    Raises:
        UserError: If the package can't be downloaded or stored.
    """

    def find(folder: Path) -> Path | None:
        return next((file for file in sorted(folder.glob(f"{name}_*.deb"))), None)

    def download(folder: Path) -> Path:
        if shutil.which("apt-get") is None:
            raise UserError(
                f"{name}: downloading this Debian package needs apt-get, which is not on this machine: use Debian or "
                f"Ubuntu, or run `apt-get download {name}` on such a machine and put the file into {folder.parent}"
            )
        # English messages, since the code below reads them.
        environment = os.environ | {"LC_ALL": "C"}
        command = ["apt-get", "download", "--quiet", name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
        fetched = find(folder)
        if done.returncode or fetched is None:
            raise UserError(_explain(name, folder.parent, done.stderr))
        return fetched

    return fetch_once(name, find, download, "apt-get", _listed_hash)


def _listed_hash(archive: Path) -> str | None:
    """Return the SHA-256 that apt's lists give for a package's version; None if they don't have it."""
    name, version = archive.name.split("_")[:2]
    try:
        command = ["apt-cache", "show", f"{name}={unquote(version)}"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return None
    listed = re.search(r"^SHA256: (\w+)$", said, re.MULTILINE)
    return listed[1] if listed else None


def read_deb(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read files of a package, in its order.

    Args:
        archive: A file that `fetch_deb` returned.
        wanted: Whether to read a file, by its path without the leading slash (`usr/share/wordnet/data.noun`). Links and
            other members that aren't plain files are never read.

    Yields:
        The path that `wanted` gets, and the content.

    Raises:
        UserError: If the package is damaged, or dpkg isn't installed.
    """
    if shutil.which("dpkg-deb") is None:
        raise UserError(f"{archive.name}: reading a Debian package needs dpkg-deb: install the package dpkg")
    damaged = f"{archive}: the package can't be read: delete it to download it again"
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        assert unpacking.stdout is not None
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
                yield from tar_members(archive, tar, wanted)
            while unpacking.stdout.read(2**16):  # the padding at the end, so that dpkg-deb ends without an error
                pass
        except tarfile.TarError:
            raise UserError(damaged) from None
    if unpacking.returncode:
        raise UserError(damaged)


def package_name(archive: Path) -> str:
    """Return `NAME VERSION` of a package's file, for display."""
    name, version = archive.name.split("_")[:2]
    return f"{name} {unquote(version)}"


def read_licence(archive: Path, pattern: str = r"^Files: \*\n(?:.+\n)*?License: *(.+)") -> str:
    """Return the licence that a package's copyright file states.

    Args:
        archive: A file that `fetch_deb` returned.
        pattern: Pattern whose first group is the licence; default: the licence of all files in the machine-readable
            format (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/).

    Raises:
        UserError: If there is no copyright file, or the pattern doesn't match.
    """
    member = f"usr/share/doc/{archive.name.split('_')[0]}/copyright"
    for _, content in read_deb(archive, member.__eq__):
        stated = re.search(pattern, content.decode("utf-8", "replace"), re.MULTILINE)
        if stated is not None:
            return f"{' '.join(stated[1].split())} (copyright file of {package_name(archive)})"
    raise UserError(
        f"{archive}: {member} in it doesn't state the licence in the expected form: read that file before you use the "
        "data"
    )


def _explain(name: str, downloads: Path, output: str) -> str:
    """Return one sentence for apt-get's error."""
    failed = f"{name} can't be downloaded"
    full = no_room(name, downloads, output)
    if full is not None:
        return full
    if "Unable to locate package" in output or "no installation candidate" in output or "404" in output:
        return (
            f"{failed}: apt's lists don't have it or are out of date: run `apt-get update` as root, and check that the "
            "sources contain the release's main section"
        )
    if re.search(r"connect|resolv|unreachable|timed out", output, re.IGNORECASE):
        return (
            f"{failed}: the package archive can't be reached: connect to the network, or run `apt-get download {name}` "
            f"elsewhere and put the file into {downloads}"
        )
    return f"{failed} ({last_error(output, 'E: ')}): check that `apt-get download {name}` works"
