"""A real study of tiny models: runs in processes, one that fails, a signal, a second call, the pages.

The runs of the call that a signal stops are new processes; all others are forked from one that has imported everything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from mm1.cli import main
from mm1.data.corpus import write_corpus
from mm1.document import Document
from mm1.errors import Stopped, UserError
from mm1.recipe import load_recipe
from mm1.scaling.points import read_points
from mm1.study.lessons import write_lessons
from mm1.study.plan import minutes_of, plan_runs, weights_digest
from mm1.study.prepare import prepared_runs, stages
from mm1.study.report import write_study_report
from mm1.study.results import read_study
from mm1.study.runner import by_directory, make_command, make_runs
from mm1.study.schema import Study, load_study
from mm1.study.store import Counts, read_store, write_store
from mm1.study.sweep import decoder_size, last_loss, write_points
from tests.conftest import KINDS, tiny_documents
from tests.study.builders import results_of, study_of
from tests.train.forked import ForkedPopen, end, start_ranks

TASK = {
    "description": "Captions of coloured squares.",
    "data": {"corpus": "captions/test"},
    "prompt": "{image}",
    "shots": {"corpus": "captions/train"},
    "metric": "accuracy",
    "max_new_tokens": 4,
    "floors": ["swapped pictures"],
}
STUDY: dict[str, Any] = {
    "name": "steps",
    "question": "Do more steps help?",
    "lesson": "Not a question of the paper.",
    "base": "tiny.yaml",
    "set": {
        "train.learning_rate": 0.001,
        "evaluate.tasks": ["squares.yaml"],
        "evaluate.shots": [0, 1],
        "evaluate.limit": 6,
    },
    "variants": {"few": {"train.steps": 3}, "more": {"train.steps": 6}, "broken": {"train.device": "cuda:7"}},
    "seeds": [0, 1],
    "claims": [
        {"claim": "More is better.", "better": {"variant": "more"}, "worse": {"variant": "few"}},
        {"claim": "More fits better.", "metric": "loss", "better": {"variant": "more"}, "worse": {"variant": "few"}},
        {"claim": "Broken is worse.", "better": {"variant": "more"}, "worse": {"variant": "broken"}},
    ],
    "paper": [{"arm": {"variant": "few"}, "scores": {0: 36.6}, "certainty": "stated"}],
}


@pytest.fixture(scope="module")
def corpora_with_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("study") / "data"
    for name, kind in KINDS.items():
        documents = tiny_documents(kind, 40)
        heldout = [Document(f"test-{d.id}", d.kind, d.parts, d.meta) for d in documents[:8]]
        write_corpus(data / name, {"train": documents, "test": heldout}, licence="none", sources=["made up"])
    return data


@pytest.fixture
def home(corpora_with_test: Path, recipe_file: Path) -> Path:
    """A directory with a recipe, a task and a study."""
    home = recipe_file.parent
    (home / "squares.yaml").write_text(yaml.safe_dump(TASK))
    (home / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return home


@pytest.fixture
def forked_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm1.study.processes.subprocess.Popen", ForkedPopen)


COMMAND = ["study", "run", "study.yaml", "--jobs", "2"]


def mm1_here(home: Path, data: Path, monkeypatch: pytest.MonkeyPatch, command: Sequence[str] = COMMAND) -> int:
    """Run a command in this process (its runs are processes all the same); return its exit code."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("MM1_DATA", str(data))
    monkeypatch.setattr(sys, "argv", ["mm1", *command])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_study_from_its_file_to_its_page(
    home: Path, corpora_with_test: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A first call is stopped while its first runs are under way.
    process = subprocess.Popen(
        [sys.executable, "-m", "mm1", *COMMAND],
        cwd=home,
        env={**os.environ, "MM1_DATA": str(corpora_with_test)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((home / "runs" / "studies" / "runs").glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command resumes" in said
    monkeypatch.setattr("mm1.study.processes.subprocess.Popen", ForkedPopen)
    # A second one goes on; the arm that can't work is named and does not stop the others.
    assert mm1_here(home, corpora_with_test, monkeypatch) == 1
    said = capsys.readouterr().err
    assert "failed: broken, seed 0" in said
    assert "'cuda:7' can't be used here" in said
    studies = home / "runs" / "studies"
    page = (studies / "steps.md").read_text()
    assert "More is better." in page
    assert "loss: variant few - variant more: " in page
    assert "| training loss |" in page
    assert "Broken is worse." not in page  # can't be judged
    assert "4 of 6 runs" in page
    assert "Failed: broken, seed 1" in page
    assert re.search(r"\| variant few \| 36\.6 \([\d.]+\) \| stated \|", page)
    assert "They are not comparable: other models and data; here 6 items a task." in page
    assert "With another item's picture in place of the right one" in page
    ElementTree.parse(studies / "steps.svg")
    assert "<svg" in (studies / "steps.html").read_text()
    runs = sorted((studies / "runs").glob("*/scores/*/study-run.json"))
    assert len(runs) == 4
    # A third one makes nothing again, and writes what was found as the points of a sweep.
    before = [run.stat().st_mtime_ns for run in runs]
    sweep = ["scale", "sweep", "study.yaml", "--points", "rates.csv", "--shots", "1"]
    assert mm1_here(home, corpora_with_test, monkeypatch, sweep) == 1
    points, measure = read_points(home / "rates.csv")
    assert measure == "score"
    few = read_study(
        [run for run in plan_runs(load_study("study.yaml"), studies / "runs") if run.recipe.train.steps == 3]
    )
    assert [point.value for point in points][::2] == pytest.approx(few.select(None, [1])[0].points[0], rel=1e-5)
    assert {point.size for point in points} == {decoder_size(load_recipe("tiny.yaml"))}
    assert [run.stat().st_mtime_ns for run in runs] == before
    assert all(json.loads(run.read_text())["seconds"] > 0 for run in runs)
    runs_there = plan_runs(load_study("study.yaml"), studies / "runs")
    # The scoreboard has all claims, one of them without a verdict; --page makes no run.
    unrun = STUDY | {"name": "unrun", "set": STUDY["set"] | {"train.batch_size": 3}}
    studies_there = [load_study("study.yaml"), Study.model_validate(unrun)]
    monkeypatch.setattr("mm1.study.lessons.lesson_studies", lambda world: studies_there)
    assert mm1_here(home, corpora_with_test, monkeypatch, ["study", "lessons", "--page"]) == 0
    board = (studies / "lessons-laptop.md").read_text()
    rows = [line.split(" | ") for line in board.splitlines() if "better." in line or "worse." in line]
    assert [row[0] for row in rows] == ["| [steps](steps.md)"] * 3 + ["| unrun"] * 3
    unmeasured = ["not measured (4 of 6 runs)", *["not measured"] * 3]
    assert [row[8].strip(" |") for row in rows][2:] == unmeasured
    assert all(row[8].strip(" |*") in ("holds", "fails", "undecided") for row in rows[:2])
    assert rows[1][6].endswith(" nats")
    assert "4 of 6 runs" in board
    assert "**4 are not measured yet: " in board
    # It is made from the stored results alone.
    (home / "kept").mkdir()
    shutil.copy(studies / "steps.json", home / "kept")
    assert write_lessons(studies_there, home / "kept", "laptop").read_text() == board
    stored = read_store(home / "kept" / "steps.json")
    assert (stored.runs, stored.of, stored.units, stored.seeds) == (4, 6, ["run"], [0, 1])
    few_there = [run for run in runs_there if run.recipe.train.steps == 3]
    assert stored.scores[0].arm == {"variant": "few"}
    assert stored.scores[0].by_seed == pytest.approx(read_study(few_there).scores[0].points[0])


def test_the_page_says_what_is_left_of_a_score_with_other_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of()
    items = np.stack([np.full((3, 8), score) for score in (10.0, 40.0)])
    results = results_of(study, items, blind=np.array([[1.0, 2.0, 6.0], [np.nan, np.nan, np.nan]]))
    monkeypatch.setattr("mm1.study.report.read_study", lambda runs: results)
    page = (
        write_study_report(study, plan_runs(study, tmp_path), tmp_path)
        .read_text()
        .split("With another item's picture")[1]
    )
    assert "| size=small | 3.0 |" in page
    assert "| size=large |" not in page


@pytest.mark.usefixtures("forked_runs")
def test_arms_that_are_scored_differently_share_their_training(
    home: Path, corpora_with_test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MM1_DATA", str(corpora_with_test))
    arms = {"all": {}, "one": {"evaluate.detailed_shots": 1}}
    common = STUDY["set"] | {"train.steps": 3}
    content = STUDY | {"set": common, "variants": arms, "seeds": [0], "claims": [], "paper": []}
    runs = plan_runs(Study.model_validate(content), home / "runs")
    (directory,) = {run.directory for run in runs}
    assert make_runs(runs, jobs=2) == []
    steps = [json.loads(line)["step"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert all(run.seconds for run in runs)
    assert not list((home / "runs").glob("*.yaml"))
    results = read_study(runs)
    assert [arm[0][1] for arm in results.arms] == ["all", "one"]
    assert all(scores.points.shape == (2, 1) and np.isfinite(scores.points).all() for scores in results.scores)
    # One scoring is lost, and another study scores the same training in its own way: only scores are made.
    shutil.rmtree(runs[0].scores)
    weights = directory / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    other = content | {"name": "other", "variants": {"fewer": {"evaluate.limit": 4}}}
    more = [*runs, *plan_runs(Study.model_validate(other), home / "runs")]
    assert [len(group) for group in by_directory(more)] == [2]
    assert make_runs(more) == []
    assert all(run.seconds for run in more)
    assert weights.stat().st_mtime_ns == before
    # What a run took holds the training, whichever study made it; what they took in all holds it once.
    trained = json.loads((directory / "training.json").read_text())["seconds"]
    assert all(run.seconds is not None and run.seconds > trained > 0 for run in more)
    scored = sum(json.loads((run.scores / "study-run.json").read_text())["seconds"] for run in more)
    assert 60 * minutes_of(more) == pytest.approx(trained + scored)


def test_two_ranks_train_once_and_score_in_two_ways(
    home: Path, corpora_with_test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM1_DATA", str(corpora_with_test))
    arms = {"all": {}, "one": {"evaluate.detailed_shots": 1}}
    common = STUDY["set"] | {"train.steps": 3, "evaluate.tasks": [str(home / "squares.yaml")]}
    changes = {
        "base": str(home / "tiny.yaml"),
        "set": common,
        "variants": arms,
        "seeds": [0],
        "claims": [],
        "paper": [],
    }
    runs = plan_runs(Study.model_validate(STUDY | changes), home / "runs")
    assert end(start_ranks(2, make_command(runs), home / "log")) == [0, 0], (home / "log.0").read_text()
    assert all(run.seconds for run in runs)
    assert {scores.points.shape for scores in read_study(runs).scores} == {(2, 1)}


@pytest.mark.usefixtures("forked_runs")
def test_what_runs_share_is_made_before_them(
    home: Path, corpora_with_test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MM1_DATA", str(corpora_with_test))
    recipe = yaml.safe_load((home / "tiny.yaml").read_text())
    (home / "on.yaml").write_text(yaml.safe_dump(recipe | {"model": {"from": "start"}}))
    content = STUDY | {"base": "on.yaml", "first": ["pretrain tiny.yaml --to start --set train.steps=3"]}
    content |= {"variants": {"one": {}}, "claims": [], "paper": []}
    study = Study.model_validate(content)
    before = plan_runs(study, home / "runs")
    (runs,) = prepared_runs([study], home / "runs")
    assert (home / "start" / "model").is_dir()
    assert [run.directory for run in runs] != [run.directory for run in before]  # other weights to start from
    with pytest.raises(UserError, match="study steps: `mm1 pretrain nowhere.yaml` failed"):
        prepared_runs([study.model_copy(update={"first": ["pretrain nowhere.yaml"]})], home / "runs")


SEEDS_OF_THEIR_OWN = STUDY | {
    "base": "on.yaml",
    "first": [
        "pretrain tiny-{seed}.yaml --to start-{seed} --set seed={seed} --set train.steps=3",
        "pretrain on.yaml --to more-{seed} --set seed={seed} --set model.from=start-{seed} --set train.steps=3",
    ],
    "set": STUDY["set"] | {"model.from": "more-{seed}", "train.steps": 3},
    "variants": {"one": {}},
    "claims": [],
    "paper": [],
}


@pytest.fixture
def seeds_of_their_own(home: Path) -> Study:
    """A study whose seeds each make two trainings first, one from the other."""
    recipe = (home / "tiny.yaml").read_text()
    for seed in (0, 1):
        (home / f"tiny-{seed}.yaml").write_text(recipe)
    (home / "on.yaml").write_text(yaml.safe_dump(yaml.safe_load(recipe) | {"model": {"from": "start-0"}}))
    (home / "study.yaml").write_text(yaml.safe_dump(SEEDS_OF_THEIR_OWN))
    return Study.model_validate(SEEDS_OF_THEIR_OWN)


@pytest.mark.usefixtures("forked_runs")
def test_what_each_seed_needs_is_made_several_seeds_at_a_time(
    home: Path,
    corpora_with_test: Path,
    seeds_of_their_own: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MM1_DATA", str(corpora_with_test))
    (home / "tiny-1.yaml").rename(home / "elsewhere.yaml")
    with pytest.raises(UserError, match=r"`mm1 pretrain tiny-1.yaml --to start-1 .*` failed: .* \(see .*\.log\)"):
        prepared_runs([seeds_of_their_own], home / "runs", jobs=2)
    assert "tiny-1.yaml" in capsys.readouterr().err  # named at once
    assert (home / "more-0" / "model").is_dir()  # the other seed went on
    (home / "elsewhere.yaml").rename(home / "tiny-1.yaml")
    other = seeds_of_their_own.model_copy(update={"name": "other"})
    first, second = prepared_runs([seeds_of_their_own, other], home / "runs", jobs=2)
    assert (home / "more-1" / "model").is_dir()
    assert len({run.directory for run in first}) == 2  # each seed starts from weights of its own
    assert [run.directory for run in first] == [run.directory for run in second]
    logs = sorted((home / "runs" / "first").iterdir())
    assert len(logs) == 4
    # Seed 0 was made before the failure, so its two commands had nothing to do; the other study called none again.
    assert sum(log.read_text().count("there is nothing to train") for log in logs) == 2


@pytest.mark.usefixtures("forked_runs")
def test_a_stop_reaches_what_each_seed_needs(
    home: Path, corpora_with_test: Path, seeds_of_their_own: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MM1_DATA", str(corpora_with_test))
    long = [command.replace("steps=3", "steps=3000") for command in seeds_of_their_own.first]

    def stop_when_both_train() -> None:
        deadline = time.monotonic() + 60
        logs = [home / f"start-{seed}" / "metrics.jsonl" for seed in (0, 1)]
        while not all(log.is_file() and log.stat().st_size for log in logs) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=stop_when_both_train)
    stopper.start()
    with pytest.raises(Stopped):
        prepared_runs([seeds_of_their_own.model_copy(update={"first": long})], home / "runs", jobs=2)
    stopper.join()
    assert all(any((home / f"start-{seed}" / "checkpoints").iterdir()) for seed in (0, 1))
    assert not list(home.glob("more-*"))  # nothing else began


def test_the_commands_of_a_seed_keep_their_order_and_others_wait_for_all_seeds() -> None:
    first = ["data build scenes", "demo --to demo-{seed}", "pretrain a --to a-{seed}", "data build texts", "demo"]
    study = study_of(first=first, seeds=[3, 5])
    assert list(stages(study)) == [
        [["data build scenes"]],
        [["demo --to demo-3", "pretrain a --to a-3"], ["demo --to demo-5", "pretrain a --to a-5"]],
        [["data build texts"]],
        [["demo"]],
    ]


def test_the_loss_of_a_run_is_that_of_its_last_tenth(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 100.0 - step} for step in range(10, 101, 5)] + [{"step": 100, "score": 1}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert last_loss(tmp_path) == 2.5
    with pytest.raises(UserError, match="ends in .csv"):
        write_points([], tmp_path / "rates.json", None, None, loss=True)
    with pytest.raises(UserError, match="none of the study's runs is done"):
        write_points([], tmp_path / "rates.csv", None, None, loss=True)


def test_seeds_are_not_added_in_silence(tmp_path: Path) -> None:
    file, counts = tmp_path / "a-study.json", Counts(6, 6, 1.0, "")
    items = np.full((2, 5, 8), 50.0)
    three, five = study_of(), study_of(seeds=[0, 1, 2, 3, 4])
    write_store(three, results_of(three, items[:, :3]), [], counts, file)
    with pytest.raises(UserError, match=r"results of 3 seeds, and now there are 5: set looks to \[3, 5\]"):
        write_store(five, results_of(five, items), [], Counts(10, 10, 1.0, ""), file)
    looked = study_of(seeds=[0, 1, 2, 3, 4], looks=[3, 5])
    write_store(looked, replace(results_of(looked, items), looks=2), [], Counts(10, 10, 1.0, ""), file)
    assert read_store(file).looks == 2


def test_without_any_run_there_is_no_scoreboard(home: Path) -> None:
    with pytest.raises(UserError, match="there are no results of any study"):
        write_lessons([Study.model_validate(STUDY)], home, "laptop")


def test_a_run_is_another_where_the_weights_that_it_starts_from_changed(tmp_path: Path) -> None:
    folder = tmp_path / "start" / "model"
    folder.mkdir(parents=True)
    names = []
    for content in (b"one", b"two", b"one"):
        (folder / "model.safetensors").write_bytes(content)
        weights_digest.cache_clear()
        names.append(weights_digest(str(folder.parent)))
    assert names[0] == names[2] != names[1]
