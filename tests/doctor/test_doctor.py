"""What `mm1 doctor` says of this machine, and what it warns of on others."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mm1.cli import app
from mm1.doctor import extras as looked_up
from mm1.doctor.checkup import warn
from mm1.doctor.extras import extras
from mm1.doctor.machine import Machine, Place, examine, places
from mm1.version import __version__

MACHINE = Machine(
    device="cuda:0",
    device_name="H100",
    dtype="bfloat16",
    bfloat16=True,
    attention="varlen",
    peak=9e14,
    peak_from="stated",
    demo_step=None,
    cores=16,
    threads=16,
    load=1.0,
    memory=64 * 2**30,
    free_memory=60 * 2**30,
    gpu_memory=80 * 2**30,
    compiler="/usr/bin/g++",
)
PLACES = {"data": Place(Path("data"), "2 corpora", 10**12, True), "runs": Place(Path("runs"), "", 10**12, True)}


def test_it_says_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "pets").mkdir(parents=True)
    (tmp_path / "data" / "pets" / "corpus.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MM1_DATA", raising=False)
    said = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"}, catch_exceptions=False).stdout
    for words in (
        "auto is",
        "TFLOP/s",
        "bfloat16",
        f"{__version__}, commit",
        f"{tmp_path}/data: 1 corpora",
        "torch",
    ):
        assert words in said
    assert "runs: not there yet" in said


def test_the_measures_are_of_this_machine() -> None:
    machine = examine()
    assert machine.device in ("cpu", "cuda:0", "mps")
    assert 1e9 < machine.peak < 1e16
    assert machine.cores <= (os.cpu_count() or 1)
    assert machine.memory is not None
    assert machine.memory > 2**30


def test_nothing_to_warn_of() -> None:
    assert list(warn(MACHINE, PLACES)) == []


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"device": "cpu"}, "no GPU"),
        ({"device": "cpu", "bfloat16": False}, "no AVX512-BF16 or AMX"),
        ({"device": "cpu", "compiler": None}, "no C++ compiler"),
        ({"device": "mps"}, "never tried on Apple's GPUs"),
        ({"threads": 4}, "OMP_NUM_THREADS=16 would use all"),
        ({"load": 40.0}, "the machine is busy: 40.0 processes"),
        ({"free_memory": 2**30}, "1.0 GiB of memory are free"),
    ],
)
def test_what_will_be_slow(change: dict[str, Any], warning: str) -> None:
    assert any(warning in said for said in warn(replace(MACHINE, **change), PLACES))


@pytest.mark.parametrize(
    ("change", "warning"), [({"writable": False}, "can't be written"), ({"free": 9}, "0.0 GiB are")]
)
def test_what_will_fail(change: dict[str, Any], warning: str) -> None:
    found = PLACES | {"runs": replace(PLACES["runs"], **change)}
    (said,) = warn(MACHINE, found)
    assert warning in said


def test_places_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "a" / "b"))
    place = places()["data"]
    assert (place.there, place.writable) == ("not there yet", True)
    assert place.free > 0


def test_extras_are_those_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        version = "3.1"
        requires = ("numpy>=1", 'here>=3; extra == "good"', 'gone>=2; extra == "bad"', 'here>=4; extra == "bad"')

        @property
        def metadata(self) -> Any:
            return self

        def get_all(self, name: str) -> list[str]:
            return ["good", "bad", "dev"]

    def distribution(name: str) -> Installed:
        if name == "gone":
            raise PackageNotFoundError
        return Installed()

    monkeypatch.setattr(looked_up, "distribution", distribution)
    assert extras() == {"good": [], "bad": ["gone", "here>=4 (here: 3.1)"]}
