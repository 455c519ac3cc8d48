"""SHA-256 of the packages that corpora are made from; nothing of a file is used before it is checked.

    sha256sums.txt              pinned: the files that the corpora were developed with
    DATA/downloads/SHA256SUMS   the user's own lines, for other files; they overrule the pinned ones

Both have the lines that `sha256sum` writes. Whoever can write the second could also write the corpora beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from mm1.errors import UserError

OWN_SUMS = "SHA256SUMS"
"""The user's file in the folder of downloads."""


def known_hashes(downloads: Path) -> dict[str, str]:
    """Return the SHA-256 that files must have, by their names.

    Args:
        downloads: The folder of downloads, which may have the user's own lines.

    Raises:
        UserError: If those can't be read, or a line isn't one of `sha256sum`.
    """
    known = _lines(
        resources.files("mm1.fetch").joinpath("sha256sums.txt").read_text(encoding="utf-8"), "sha256sums.txt"
    )
    own = downloads / OWN_SUMS
    try:
        return known | _lines(own.read_text(encoding="utf-8"), str(own))
    except (FileNotFoundError, NotADirectoryError):
        return known
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{own}: it can't be read ({error}): mend or remove it") from None


def _lines(text: str, name: str) -> dict[str, str]:
    hashes = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            value, _, file = line.partition("  ")
            if len(value) != 64 or not set(value) <= set("0123456789abcdef") or not file.strip():
                raise UserError(
                    f"{name}, line {number}: write what `sha256sum FILE` prints, digits, two blanks and a name"
                )
            hashes[file.strip()] = value
    return hashes


def check_hash(file: Path, downloads: Path, other: Callable[[Path], str | None] = lambda _: None) -> None:
    """Check that a file is the one that is known by its name.

    Args:
        file: The file.
        downloads: The folder of downloads.
        other: Returns what a file that isn't known must have, from a source that is trusted; None: there is nothing.

    Raises:
        UserError: If its SHA-256 is another one, or nothing says which it must have.
    """
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    expected = known_hashes(downloads).get(file.name) or other(file)
    if expected is None:
        raise UserError(
            f"{file.name}: no SHA-256 is pinned for it, so nothing of it is used: if you trust it, add the line "
            f"`{found}  {file.name}` to {downloads / OWN_SUMS}"
        )
    if found != expected:
        raise UserError(
            f"{file}: its SHA-256 is {found}, and not {expected} as it must be, so nothing of it is used: delete it "
            "to download it again; if it is the same again, somebody has changed the package"
        )
