"""The layout is what docs/architecture.md says: rooms import downwards, files have no circles, no room is too large."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import mm1

PACKAGE = Path(str(mm1.__file__)).parent
PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
LARGEST_ROOM = 0.15
LONGEST_FILE = 410


def module_name(file: Path) -> str:
    return ".".join(["mm1", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module_name(file): file for file in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports anywhere: in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys() or {str(node.module)}
    return {name for name in found if name in MODULES and name not in ("mm1", module)}


def rule() -> dict[str, int]:
    """Return the height of every room: its line in the page's block of rooms, the lowest at 0."""
    block = re.search(r"## Imports.*?```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    lines = [[room.strip() for room in line.split(",")] for line in block[1].splitlines()]
    return {room: height for height, rooms in enumerate(reversed(lines)) for room in rooms}


def test_the_page_names_every_room() -> None:
    rooms = {room_of(module) for module in MODULES if module not in ("mm1", "mm1.__main__", "mm1.recipes")}
    assert rooms == rule().keys()


def test_rooms_import_only_what_lies_below_them() -> None:
    heights = rule()
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if module not in ("mm1", "mm1.__main__")
        for other in imports(module)
        if room_of(other) != room_of(module) and heights.get(room_of(other), 0) >= heights.get(room_of(module), 0)
    ]
    assert wrong == []


def test_files_import_one_another_in_one_direction() -> None:
    try:
        list(TopologicalSorter({module: imports(module) for module in MODULES}).static_order())
    except CycleError as circle:
        raise AssertionError(" -> ".join(circle.args[1])) from None


def test_no_room_and_no_file_is_too_large() -> None:
    lines: dict[str, int] = defaultdict(int)
    for module, file in MODULES.items():
        count = len(file.read_text().splitlines())
        assert count <= LONGEST_FILE, f"{file}: {count} lines: does it still do one thing?"
        lines[room_of(module) if "." in module else module] += count
    too_large = {room: count for room, count in lines.items() if count > LARGEST_ROOM * sum(lines.values())}
    assert too_large == {}


def test_templates_and_packaged_files_are_where_the_code_looks() -> None:
    """Names of packages in strings move with the folders: `resources.files("mm1.look")` and the like."""
    for module, file in MODULES.items():
        for name in re.findall(r'"(mm1(?:\.\w+)+)"', file.read_text()):
            if module not in ("mm1.moved", "mm1.registration") and not name.endswith(".json"):
                assert name in MODULES, f"{module} names {name}"
