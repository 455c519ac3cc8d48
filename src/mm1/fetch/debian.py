"""Fetch packages of Debian that carry data, through apt-get, and read named members straight from them.

    archive = fetch_deb("wordnet-base")
    for name, content in read_deb(archive, lambda name: name.endswith("data.noun")): ...

No root is needed: a package is downloaded once into `data_directory()/downloads`, never installed, and nothing of it
is unpacked onto the disk. Versions are what the system's release has; a corpus records which it was.
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
    """Return the `.deb` file of a package, downloading it if it isn't there yet.

    Args:
        name: The package's name.

    Raises:
        UserError: If it can't be downloaded or stored.
    """

    def find(folder: Path) -> Path | None:
        return next((file for file in sorted(folder.glob(f"{name}_*.deb"))), None)

    def download(folder: Path) -> Path:
        if shutil.which("apt-get") is None:
            raise UserError(
                f"{name} is a package of Debian and there is no apt-get here: use Debian or Ubuntu, or put the file "
                f"that `apt-get download {name}` gives there into {folder.parent}"
            )
        # Messages in English, because they are read below.
        environment = os.environ | {"LC_ALL": "C"}
        command = ["apt-get", "download", "--quiet", name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
        fetched = find(folder)
        if done.returncode or fetched is None:
            raise UserError(_explain(name, folder.parent, done.stderr))
        return fetched

    return fetch_once(name, find, download, "apt-get")


def read_deb(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read files of a package, in its order.

    Args:
        archive: A file that `fetch_deb` returned.
        wanted: Whether a file is to be read, by its path without the leading slash (`usr/share/wordnet/data.noun`).
            Links and other things that aren't plain files are never read.

    Yields:
        The path as `wanted` saw it, and the content.

    Raises:
        UserError: If the package is damaged, or dpkg isn't installed.
    """
    if shutil.which("dpkg-deb") is None:
        raise UserError(f"{archive.name}: reading a package of Debian needs dpkg-deb: install the package dpkg")
    damaged = f"{archive}: the package can't be read: delete it, it will be downloaded again"
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        assert unpacking.stdout is not None
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
                yield from tar_members(archive, tar, wanted)
            while unpacking.stdout.read(2**16):  # the padding at the end, so that dpkg-deb can end in peace
                pass
        except tarfile.TarError:
            raise UserError(damaged) from None
    if unpacking.returncode:
        raise UserError(damaged)


def package_name(archive: Path) -> str:
    """Return `NAME VERSION` of a package's file, for people to read."""
    name, version = archive.name.split("_")[:2]
    return f"{name} {unquote(version)}"


def read_licence(archive: Path, pattern: str = r"^Files: \*\n(?:.+\n)*?License: *(.+)") -> str:
    """Return the licence that a package's copyright file states.

    Args:
        archive: A file that `fetch_deb` returned.
        pattern: Its first group is the licence; default: that of all files in the machine-readable format
            (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/).

    Raises:
        UserError: If there is no copyright file, or no such statement in it.
    """
    member = f"usr/share/doc/{archive.name.split('_')[0]}/copyright"
    for _, content in read_deb(archive, member.__eq__):
        stated = re.search(pattern, content.decode("utf-8", "replace"), re.MULTILINE)
        if stated is not None:
            return f"{' '.join(stated[1].split())} (copyright file of {package_name(archive)})"
    raise UserError(f"{archive}: its {member} doesn't state the licence as expected: read it before you use the data")


def _explain(name: str, downloads: Path, output: str) -> str:
    """Return one sentence for what apt-get said."""
    failed = f"{name} could not be downloaded"
    full = no_room(name, downloads, output)
    if full is not None:
        return full
    if "Unable to locate package" in output or "no installation candidate" in output or "404" in output:
        return (
            f"{failed}: apt's lists don't have it or are out of date: run `apt-get update` as root (and see that the "
            "release's main section is among the sources)"
        )
    if re.search(r"connect|resolv|unreachable|timed out", output, re.IGNORECASE):
        return (
            f"{failed}: the package archive can't be reached: connect to the network, or put the file that "
            f"`apt-get download {name}` gives into {downloads}"
        )
    return f"{failed} ({last_error(output, 'E: ')}): check that `apt-get download {name}` works"
