"""Names of the package that pages and docstrings say are there, as Sphinx will look them up."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest

from tests.docs.blocks import ROOT, pages

DIRECTIVE = re.compile(r"^\.\. auto\w+:: (\S+)\n(?: +:members: (.+))?", re.MULTILINE)
NAMED = re.compile(r"`(mm1(?:\.\w+)+)(?:\(\))?`")


def find(name: str) -> Any:
    """Return what a dotted name stands for; a field of a class counts.

    Raises:
        LookupError: If there is nothing of that name.
    """
    words = name.split(".")
    for count in range(len(words), 0, -1):
        try:
            found: Any = import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            fields = getattr(found, "__annotations__", {})
            if word not in fields and not hasattr(found, word):
                raise LookupError(f"{name}: there is no {word}")
            found = getattr(found, word, fields.get(word))
        return found
    raise LookupError(f"{name}: there is no such module")


def test_the_reference_shows_what_there_is() -> None:
    shown = DIRECTIVE.findall((ROOT / "docs" / "reference" / "python.md").read_text())
    assert len(shown) > 20
    for name, members in shown:
        for member in [*members.split(", "), ""] if members else [""]:
            find(f"{name}.{member}".rstrip("."))


def test_names_in_pages_and_docstrings_are_there() -> None:
    files = [*(ROOT / page for page in pages()), *sorted((ROOT / "src").rglob("*.py"))]
    named = {(file, name) for file in files for name in NAMED.findall(file.read_text())}
    assert len(named) > 50
    for file, name in named - {(ROOT / "src" / "mm1" / "auto_map.py", "mm1.py")}:  # a file
        try:
            find(name)
        except LookupError as error:
            pytest.fail(f"{file.relative_to(ROOT)} names {error}")


@pytest.mark.parametrize("name", ["mm1.study.runner.prepared_runs", "mm1.nowhere", "mm1.document.Document.nothing"])
def test_a_stale_name_is_found(name: str) -> None:
    with pytest.raises(LookupError, match="there is no"):
        find(name)
