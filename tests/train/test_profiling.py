"""`train.profile` leaves a trace of the steps that it names, and changes nothing else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.study.plan import identity
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at
from tests.train.test_telemetry import lines_of


def steps_in(trace: Path) -> int:
    """Return how many optimizer steps a trace has."""
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return sum(event.get("name", "").startswith("Optimizer.step") and event["ph"] == "X" for event in events)


def test_the_named_steps_are_in_the_trace_also_of_a_run_that_goes_on(
    recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    plain = load_recipe(str(recipe_file))
    pretrain(plain, tmp_path / "plain")
    with breaking_at(6):
        pretrain(plain, tmp_path / "run")
    assert not (tmp_path / "run" / "profile").exists()
    pretrain(load_recipe(str(recipe_file), ["train.profile=[8, 3]"]), tmp_path / "run")
    assert [file.name for file in (tmp_path / "run" / "profile").iterdir()] == ["rank0.json.gz"]
    assert steps_in(tmp_path / "run" / "profile" / "rank0.json.gz") == 3
    assert [line["loss"] for line in lines_of(tmp_path / "run")] == [
        line["loss"] for line in lines_of(tmp_path / "plain")
    ]


def test_a_training_that_breaks_leaves_the_steps_until_then(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    with breaking_at(6):
        pretrain(load_recipe(str(recipe_file), ["train.profile=[5, 4]"]), tmp_path / "run")
    assert steps_in(tmp_path / "run" / "profile" / "rank0.json.gz") == 2


def test_it_does_not_name_a_run_and_must_lie_within_it(recipe_file: Path) -> None:
    profiled = load_recipe(str(recipe_file), ["train.profile=[10, 3]"])
    assert identity(profiled) == identity(load_recipe(str(recipe_file)))
    with pytest.raises(UserError, match=r"profile \[10, 4\] ends at step 13 of 12"):
        load_recipe(str(recipe_file), ["train.profile=[10, 4]"])
    with pytest.raises(UserError, match=r"train\.profile"):
        load_recipe(str(recipe_file), ["train.profile=[0, 4]"])
