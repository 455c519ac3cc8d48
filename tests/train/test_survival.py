"""Whatever happens to it, a run comes to the end it would have come to: killed, out of disk, a rank lost."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mm1.data.corpus import write_corpus
from mm1.train.checkpoint import checkpoints
from tests.conftest import tiny_documents
from tests.train.forked import batches, end, environments, start, start_ranks

KILLED, BATCH, STEPS = -9, 4, 12


def command(recipe_file: Path, run: Path) -> list[object]:
    """A checkpoint is under way nearly always."""
    return ["pretrain", recipe_file, "--to", run, "--set", "train.checkpoint_every=2"]


def column(run: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def partials(run: Path) -> list[Path]:
    return [path for path in run.rglob("*.partial") if "plan" not in path.parts]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[object], Path]:
    """Makes folders, each for a run and its logs."""

    def make(name: object) -> Path:
        (tmp_path / str(name)).mkdir()
        return tmp_path / str(name)

    return make


def test_killed_at_twenty_moments_it_comes_to_the_same_end(
    recipe_file: Path, data: Path, folder: Callable[[object], Path]
) -> None:
    """Half of them by the clock, over the whole of a run; half before a line of the code that saves.

    On one process and on two; of two sometimes only one is killed; some go on on another number of processes.
    """
    assert end([start(["data", "plan", recipe_file], folder("warm") / "log")]) == [0]  # the corpora are indexed
    whole, seconds = {}, {}
    for ranks in (1, 2):
        whole[ranks], began = folder(f"whole-{ranks}"), time.monotonic()
        assert end(start_ranks(ranks, command(recipe_file, whole[ranks] / "run"), whole[ranks] / "log")) == [0] * ranks
        seconds[ranks] = time.monotonic() - began
    counted = folder("counted")
    assert end([start(command(recipe_file, counted / "run"), counted / "log", kill_at_line=0)]) == [0]
    lines_there_are = json.loads((counted / "log.lines").read_text())
    chance, killed = random.Random(5), 0
    for number in range(20):
        here, ranks = folder(number), 2 if number % 5 == 4 else 1
        afterwards = 3 - ranks if number in (5, 12, 14) else ranks
        if number % 2:
            line = chance.randrange(1, lines_there_are)
            processes = start_ranks(ranks, command(recipe_file, here / "run"), here / "log", kill_at_line=line)
        else:
            processes = start_ranks(ranks, command(recipe_file, here / "run"), here / "log")
            processes[0].join(chance.uniform(0, seconds[ranks]))
            for process in processes[: 1 + number % 3]:
                process.kill()
        killed += KILLED in end(processes)

        resumed = start_ranks(afterwards, command(recipe_file, here / "run"), here / "resumed")
        assert end(resumed) == [0] * afterwards, (here / "resumed.0").read_text()
        run, reference = here / "run", whole[ranks] / "run"
        assert column(run, "step") == list(range(1, STEPS + 1))
        for name in ("tokens", "images"):
            assert column(run, name) == column(reference, name)
        if (here / "resumed.0.rows").is_file():
            played = batches(here / "resumed", afterwards, BATCH)
            assert played == batches(whole[1] / "log", 1, BATCH)[STEPS - len(played) :]
        if afterwards == ranks:
            assert column(run, "loss") == column(reference, "loss")
            assert weights(run) == weights(reference)
        else:
            assert column(run, "loss") == pytest.approx(column(reference, "loss"), rel=2e-4)
        assert len(checkpoints(run / "checkpoints")) == 2
        assert not partials(run)
    assert killed >= 15


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_stops_the_run_cleanly_and_it_goes_on_when_there_is_room(
    ranks: int, recipe_file: Path, data: Path, tmp_path: Path, small_disk: Path
) -> None:
    run = small_disk / "run"
    arguments = [*command(recipe_file, run), "--set", "train.keep_checkpoints=100"]
    assert end(start_ranks(ranks, arguments, tmp_path / "full")) == [2] * ranks
    said = (tmp_path / "full.0").read_text()
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert checkpoints(run / "checkpoints")
    assert not partials(run)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert end(start_ranks(ranks, arguments, tmp_path / "more")) == [0] * ranks
    assert "resuming from step" in (tmp_path / "more.0").read_text()
    arguments[arguments.index(run)] = tmp_path / "whole"
    assert end(start_ranks(ranks, arguments, tmp_path / "log")) == [0] * ranks
    assert column(run, "loss") == column(tmp_path / "whole", "loss")


def disagreement(first: list[object], second: list[object], folder: Path, **of_second: object) -> str:
    """Have two ranks run different commands, which both of them must refuse; return what the first says."""
    one, two = environments(2)
    processes = [
        start(first, folder / "first", environment=one),
        start(second, folder / "second", environment={**two, **of_second}),
    ]
    assert end(processes) == [2, 2]
    return " ".join((folder / "first").read_text().split())


def test_ranks_that_disagree_stop_at_the_start(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = command(recipe_file, run)
    said = disagreement(arguments, [*arguments, "--set", "seed=1"], tmp_path)
    assert "rank 1 has another recipe than rank 0" in said
    said = disagreement(arguments, arguments, tmp_path, MM1_DATA=tmp_path / "nowhere")
    assert re.search("rank 1: .*no corpus there.*mm1 data build", said)
    shutil.copytree(data, tmp_path / "other")
    write_corpus(tmp_path / "other/prose", {"train": tiny_documents("text", 41)}, licence="none", sources=["made up"])
    said = disagreement(arguments, arguments, tmp_path, MM1_DATA=tmp_path / "other")
    assert "rank 1 has another corpora than rank 0" in said
    assert not run.exists()  # nothing was prepared before they agreed
    assert end([start([*arguments, "--set", "train.steps=4"], tmp_path / "alone")]) == [0]
    shutil.rmtree(run / "model")
    elsewhere = command(recipe_file, tmp_path / "elsewhere")
    short = ["--set", "train.steps=4"]
    assert "rank 1 has another checkpoint than rank 0" in disagreement(
        [*arguments, *short], [*elsewhere, *short], tmp_path
    )


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_dies_while_the_first_prepares_ends_the_other(
    lost: int, recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    processes = start_ranks(2, command(recipe_file, run), tmp_path / "log")
    while not (run / "recipe.yaml").is_file():
        time.sleep(0.002)
    assert not (run / "plan").exists()
    processes[lost].kill()
    codes = end(processes)
    assert codes[lost] == KILLED
    assert codes[1 - lost] == 2
    assert f"rank {lost} has ended without a word" in (tmp_path / f"log.{1 - lost}").read_text()
