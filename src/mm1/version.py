"""The version of the package, and the commit that it was made from."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

_PACKAGE = Path(__file__).parent


def source_commit() -> str | None:
    """Return the commit of this code, with `+changes` if it was changed since; None if it is unknown.

    A wheel holds the commit that it was built from. In a working tree it is the tree's, where that is the top of a
    repository: a package that is installed inside another repository doesn't take that one's commit.
    """
    try:
        return (_PACKAGE / "commit.txt").read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        root = _PACKAGE.parent.parent
        return commit_of_repository(root) if root / "src" / "mm1" == _PACKAGE else None


def commit_of_repository(root: Path) -> str | None:
    """Return the commit of a repository, with `+changes` if its `src` has uncommitted ones.

    Args:
        root: The repository's top.

    Returns:
        None if git isn't installed or refuses, or `root` is not a repository's top.
    """
    import subprocess

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
