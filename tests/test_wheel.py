"""The wheel: it holds all that the package reads, and nothing of the rest; it works without the tree that made it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "mm1"
LEFT_OUT = {"__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (made,) = folder.glob("mm1-*.whl")
    return made


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-qq", *arguments], check=True, capture_output=True, text=True)


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = {file for file in PACKAGE.rglob("*") if file.is_file() and not LEFT_OUT & set(file.parts)}
    expected = {f"mm1/{file.relative_to(PACKAGE).as_posix()}" for file in files}
    names = zipfile.ZipFile(wheel).namelist()
    held = {name for name in names if ".dist-info/" not in name}
    assert held - {"mm1/commit.txt"} == expected
    kinds = {Path(name).suffix for name in held}
    assert kinds >= {".py", ".yaml", ".html", ".jinja", ".css", ".js", ".typed", ".txt"}
    assert {name.split("/")[1] for name in names if ".dist-info/" in name} >= {
        "METADATA",
        "entry_points.txt",
        "licenses",
    }


def test_an_installed_wheel_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Another repository around it does not change what it says of its commit."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    target, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    ask = "import sys, mm1.cli, mm1.version as v; print(mm1.cli.__file__); print(v.source_commit()); mm1.cli.main()"

    def run(*arguments: str) -> list[str]:
        command = [sys.executable, "-c", ask, *arguments]
        done = subprocess.run(
            command,
            cwd=empty,
            env=os.environ | {"PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    place, commit, *recipe = run("recipe", "show", "demo")
    assert Path(place).is_relative_to(target)
    repository = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    assert commit.removesuffix("+changes") == (repository.stdout.strip() or "None")
    assert "name: demo" in recipe
    said = "\n".join(run("doctor"))
    assert commit[:12] in said
