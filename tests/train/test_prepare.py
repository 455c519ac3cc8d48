"""Planning that takes long is refused on several ranks; the command that the sentence names does it first."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.train import prepare
from mm1.train.pretrain import pretrain
from tests.train.forked import end, on_ranks, start, start_ranks

PAPER = ["--set", "train.steps=200000", "--set", "train.batch_size=512"]
COMMAND = r"plan first on one machine with `mm1 (data plan .*?)`, then run this command again"


def test_a_plan_of_the_papers_size_is_refused_on_two_ranks(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "a run", tmp_path / "log"
    assert end(start_ranks(2, ["pretrain", recipe_file, "--to", run, *PAPER], log)) == [2, 2]
    said = " ".join((tmp_path / "log.0").read_text().split())
    assert "102,400,000 sequences to pack), for which 2 ranks would wait" in said
    assert (tmp_path / "log.1").read_text() == ""  # the first rank speaks for all
    assert not (run / "plan").exists()
    command = re.search(COMMAND, said)
    assert command is not None
    assert shlex.split(command[1]) == ["data", "plan", str(run / "recipe.yaml"), "--to", str(run)]


def train(recipe_file: Path, run: Path, sentence: Path | None) -> None:
    """Train on ranks that may wait for no planning at all; with `sentence`, they must be refused."""
    prepare.LONGEST_PLANNING = 0.0
    recipe = load_recipe(str(recipe_file), ["train.steps=4"])
    if sentence is None:
        pretrain(recipe, run)
        return
    with pytest.raises(UserError) as refused:
        pretrain(recipe, run)
    sentence.write_text(str(refused.value))


def test_the_command_makes_the_plan_that_the_ranks_then_use(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    run, sentence = tmp_path / "run", tmp_path / "sentence"
    on_ranks(2, train, recipe_file, run, sentence)
    command = re.search(COMMAND, sentence.read_text())
    assert command is not None
    assert end([start(shlex.split(command[1]), tmp_path / "log")]) == [0]
    planned = (run / "plan" / "plan.json").stat()
    on_ranks(2, train, recipe_file, run, None)
    assert (run / "model" / "config.json").is_file()
    assert (run / "plan" / "plan.json").stat().st_mtime_ns == planned.st_mtime_ns
