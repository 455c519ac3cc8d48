"""Plans are to the byte what they were, by however many processes and parts they are made, and after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mm1.errors import UserError
from mm1.plan import streams
from tests.plan.golden.make_plans import FILE, MIXTURES, make

GOLDEN: dict[str, Any] = json.loads(FILE.read_text())
MANY_PARTS = "many epochs"

INTERRUPTED = """
import sys
from pathlib import Path
from mm1.errors import UserError
from mm1.plan import streams
from tests.plan.golden.make_plans import make
streams._PER_PART = 1000
make(Path(sys.argv[1]), sys.argv[2], workers=1)
"""


def made(directory: Path, mixture: str, **how: Any) -> Any:
    return json.loads(json.dumps(make(directory, mixture, **how)))


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_plan_is_what_it_was(mixture: str, tmp_path: Path) -> None:
    assert made(tmp_path / "plan", mixture) == GOLDEN[mixture]
    assert sorted(file.name for file in tmp_path.iterdir()) == [".plan.lock", "plan"]


@pytest.mark.parametrize("per_part", [100, 66_000])
def test_the_size_of_parts_makes_no_difference(per_part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_PER_PART", per_part)
    for mixture in ("all kinds", "many epochs", "one source of two blocks"):
        assert made(tmp_path / mixture, mixture) == GOLDEN[mixture]


def test_the_number_of_processes_makes_no_difference(tmp_path: Path) -> None:
    assert made(tmp_path / "plan", "all kinds", workers=2) == GOLDEN["all kinds"]


def test_ray_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the token of its local cluster there
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert made(tmp_path / "plan", "all kinds", engine="ray") == GOLDEN["all kinds"]
    finally:
        ray.shutdown()


def parts_of(packing: streams.Packing, chain: int, part: int) -> str:
    return str(packing.part_file(chain, part, ".json"))


def test_a_killed_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "plan"), MANY_PARTS]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    pattern, deadline = "plan.packing/source-*/*-*.json", time.monotonic() + 300
    while len(list(tmp_path.glob(pattern))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = {str(file) for file in tmp_path.glob(pattern)}
    assert len(done) >= 3
    assert not (tmp_path / "plan").exists()
    monkeypatch.setattr(streams, "_PER_PART", 1000)
    again: set[str] = set()
    pack_part = streams.pack_part

    def noted(packing: streams.Packing, chain: int, part: int, limit: int) -> None:
        again.add(parts_of(packing, chain, part))
        pack_part(packing, chain, part, limit)

    monkeypatch.setattr(streams, "pack_part", noted)
    assert made(tmp_path / "plan", MANY_PARTS) == GOLDEN[MANY_PARTS]
    assert again
    assert not again & done
    assert sorted(file.name for file in tmp_path.iterdir()) == [".plan.lock", "plan"]


def test_ctrl_c_and_a_full_disk_keep_what_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_PER_PART", 1000)
    begun: list[str] = []
    pack_part = streams.pack_part

    def interrupted(packing: streams.Packing, chain: int, part: int, limit: int) -> None:
        begun.append(parts_of(packing, chain, part))
        if len(begun) == 2:
            raise KeyboardInterrupt
        if len(begun) == 4:
            raise OSError(28, "No space left on device")
        pack_part(packing, chain, part, limit)

    monkeypatch.setattr(streams, "pack_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "plan", MANY_PARTS)
    with pytest.raises(UserError, match="plan.packing: .*No space left on device.*run the same command again"):
        make(tmp_path / "plan", MANY_PARTS)
    assert made(tmp_path / "plan", MANY_PARTS) == GOLDEN[MANY_PARTS]
    assert len(begun) == len(set(begun)) + 2
