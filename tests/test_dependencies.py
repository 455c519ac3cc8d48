"""What the code imports is what pyproject.toml asks for, and the two files of constraints fit it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mm1.version import __version__

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "mm1"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEVELOPMENT = ("dev", "peers", "browser", "docs")
"""Extras of those who work on mm1; the constraints of what runs leave out what only they have."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "pillow_heif": "pillow-heif",
    "prometheus_client": "prometheus-client",
    "resvg_py": "resvg-py",
    "sklearn": "scikit-learn",
    "textual_image": "textual-image",
    "yaml": "pyyaml",
}
"""Distributions of modules that have another name."""

OF_THE_CALLER = {
    "_typeshed": "type checkers have it",
    "lm_eval": "it loads the adapter that imports it",
    "lmms_eval": "it loads the adapter that imports it",
    "trackio": "a recipe names it; it wants a pillow that is older than that of constraints.txt",
}
"""Modules that nothing has to install."""

ROOMS_OF_EXTRAS = {"serve": "serve"}
"""Rooms that import an extra's packages when they are loaded; the command looks whether they are there first."""


def requirements(lists: list[list[str]]) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for texts in lists for text in texts for r in [Requirement(text)]}


EXTRAS = PROJECT["optional-dependencies"]
BASE = requirements([PROJECT["dependencies"]])
OF_EXTRAS = requirements([texts for name, texts in EXTRAS.items() if name not in DEVELOPMENT])


def imported(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield the packages of others that a file imports, each with whether it does so when it is loaded."""
    tree = ast.parse(file.read_text())
    later = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) or _for_type_checkers(node)]
    inside = {id(node) for part in later for node in ast.walk(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            modules = [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for name in {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"mm1"}:
            if name not in OF_THE_CALLER:
                yield canonicalize_name(DISTRIBUTIONS.get(name, name)), id(node) not in inside


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_every_import_is_a_dependency() -> None:
    missing: dict[str, list[str]] = defaultdict(list)
    for file in PACKAGE.rglob("*.py"):
        where = str(file.relative_to(PACKAGE))
        extra = ROOMS_OF_EXTRAS.get(where.split("/")[0])
        at_load = BASE.keys() | (requirements([EXTRAS[extra]]).keys() if extra else set())
        for name, loading in imported(file):
            if name not in (at_load if loading else BASE.keys() | OF_EXTRAS.keys()):
                missing[name].append(where)
    assert missing == {}


def test_every_dependency_is_imported_or_has_its_reason() -> None:
    names = {name for file in PACKAGE.rglob("*.py") for name, _ in imported(file)}
    # pip is called as a program (mm1.fetch.pip); datasets reads and writes what DuckDB and Arrow don't.
    assert BASE.keys() - names == {"pip"}


def test_every_extra_that_a_message_names_exists() -> None:
    named = {extra for file in PACKAGE.rglob("*.py") for extra in re.findall(r"mm1\[(\w+)\]", file.read_text())}
    assert named <= EXTRAS.keys()
    assert named


def lines(file: str) -> dict[str, Requirement]:
    return requirements([[line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]])


def test_what_mm1_is_developed_with_is_pinned_and_within_what_it_runs_with() -> None:
    pins, ranges = lines("constraints.txt"), lines("constraints-runtime.txt")
    assert {str(pin.specifier)[:2] for pin in pins.values()} == {"=="}
    assert ranges.keys() >= BASE.keys() | OF_EXTRAS.keys() - {"mm1"}
    for name, wide in ranges.items():
        if name != "pip":  # whoever makes the environment brings it
            version = Version(str(pins[name].specifier).removeprefix("=="))
            assert version in wide.specifier, f"constraints-runtime.txt: {wide} leaves out {version}"


def test_what_mm1_runs_with_is_as_wide_as_what_it_asks_for() -> None:
    """A package that pyproject.toml allows in an older version is allowed by the constraints too."""
    ranges = lines("constraints-runtime.txt")
    for name, asked in BASE.items():
        lowest = {s.version for s in asked.specifier if s.operator == ">="}
        assert lowest, f"{asked}: no oldest version"
        assert lowest == {s.version for s in ranges[name].specifier if s.operator == ">="}


def test_the_citation_has_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == __version__ == PROJECT["version"]
