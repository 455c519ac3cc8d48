"""Writes the commit into what is built: `mm1/commit.txt` in a wheel, `src/mm1/commit.txt` in a source distribution.

An installed package lies in no repository, so this is how a run's environment.json knows its code. Where the tree is no
repository of its own, nothing is written: a wheel made from a source distribution takes that one's file.
"""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PLACES = {"wheel": "mm1/commit.txt", "sdist": "src/mm1/commit.txt"}


class CommitHook(BuildHookInterface):
    """Adds the file with the commit."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file to what is built, unless the build is an editable one, which reads the repository.

        Args:
            version: `standard` or `editable`.
            build_data: What hatchling builds; changed in place.
        """
        commit = commit_of(Path(self.root))
        if version == "editable" or commit is None:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="mm1-build-")
        file = Path(self._folder.name) / "commit.txt"
        file.write_text(f"{commit}\n", encoding="utf-8")
        build_data["force_include"][str(file)] = _PLACES[self.target_name]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the file on disk."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def commit_of(root: Path) -> str | None:
    """Return the commit of the repository whose top is `root`, or None if there is none; see mm1.version."""
    # The tree's own function, by its file: mm1 can't be imported where it is built.
    found: str | None = runpy.run_path(str(root / "src" / "mm1" / "version.py"))["commit_of_repository"](root)
    return found
