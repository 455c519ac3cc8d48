"""What a rehearsal finds, and what the command makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.rehearse.rehearsal import Rehearsal, rehearse
from mm1.scaling.budget import Layout, _activations, _bytes_sent, _memory, _Weights
from mm1.scaling.gpus import GPU, GPUS, gpu
from mm1.scaling.subject import shape_of
from mm1.scaling.workload import recipe_workload

SMALL = ["data.sequence_length=64", "data.images_per_sequence=2", "train.batch_size=8", "train.micro_batch_size=1"]
H100 = gpu("h100")


def tiny(*settings: str, gpus: int = 2, kind: GPU = H100) -> Rehearsal:
    return rehearse(load_recipe("mm1-tiny", [*SMALL, *settings]), kind, gpus)


def run(*arguments: str) -> Any:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    return CliRunner().invoke(
        app,
        ["scale", "rehearse", "mm1-tiny", *settings, *arguments],
        env={"COLUMNS": "150"},
        catch_exceptions=False,
    )


def test_the_command_prints_every_table_and_a_verdict() -> None:
    result = run("--gpus", "2")
    assert result.exit_code == 0
    for wanted in (
        "memory of rank 0",
        "checkpoint",
        "reduce-scatter",
        "waits for the GPU",
        "target_positions",
        "fits:",
    ):
        assert wanted in result.output


def test_the_command_fails_where_the_host_must_not_wait() -> None:
    result = run("--gpus", "2", "--json", "--no-stalls")
    found = json.loads(result.output)
    assert result.exit_code == (1 if found["stalls"] else 0)
    assert found["does_not_fit"] == []
    assert found["peaks"]["step"] == sum(found["memory"]["step"].values())
    assert found["sent"]["shard reduce-scatter"] > 0


def test_the_command_fails_where_memory_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GPUS, "small", GPU("small", 1e12, 2e7, 1e9, 1e9))
    result = run("--gpus", "2", "--gpu", "small")
    assert result.exit_code == 1
    assert "does not fit: " in result.output
    assert "step takes 0.0 GB" in result.output


def test_a_rank_that_does_not_exist_is_one_sentence() -> None:
    with pytest.raises(UserError, match="--rank 2: 2 GPUs have the ranks 0 to 1"):
        rehearse(load_recipe("mm1-tiny", SMALL), H100, 2, 2)


def test_replicas_reduce_over_their_own_dimension() -> None:
    sent = tiny("train.replicas=2", gpus=4).seen.sent
    assert sent["replicate", "all-reduce"] > 0
    assert sent["shard", "reduce-scatter"] > 0


def test_a_value_read_in_a_step_is_found_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    import mm1.rehearse.step as step

    before = tiny().seen.stalls
    real = step.language_model_loss

    def reading(*arguments: Any) -> Any:
        losses = real(*arguments)
        assert float(losses.total) == 1  # what fake tensors answer
        return losses

    monkeypatch.setattr(step, "language_model_loss", reading)
    after = tiny().seen.stalls
    assert sum(after.values()) - sum(before.values()) == 4  # one for each micro-batch
    assert any("test_rehearsal.py" in place for _, place in after)


def test_compiled_blocks_are_counted() -> None:
    compiled = tiny("train.compile=true").compiled
    assert compiled is not None
    assert compiled.graphs >= 2
    assert tiny().compiled is None


AGREES = [
    ("mm1-1b", 1, False),
    ("mm1-3b", 64, False),
    ("mm1-7b", 64, False),
    ("mm1-30b", 64, True),
]


@pytest.mark.parametrize(("name", "gpus", "recompute"), AGREES)
def test_the_budget_agrees(name: str, gpus: int, recompute: bool) -> None:
    """The budget counts by formulas, which take less time; the rehearsal runs the code."""
    settings = ["train.micro_batch_size=1", f"train.activation_checkpointing={str(recompute).lower()}"]
    recipe = load_recipe(name, settings)
    made = rehearse(recipe, H100, gpus)
    model = shape_of(recipe)
    weights = _Weights.of(model, recipe)
    layout = Layout(gpus, 1, 1, made.seen.micro_batches, recompute)
    workload = recipe_workload(recipe, model.config.image_seq_length)
    memory = _memory(weights, layout, _activations(recipe, workload, gpus, recompute, several=False))
    assert memory.total == pytest.approx(made.peaks["step"], rel=0.05)
    moved = sum(sent for (dimension, _), sent in made.seen.sent.items() if dimension != "host")
    assert sum(_bytes_sent(weights, layout)) == pytest.approx(moved, rel=0.05)
    if recompute or gpus > 1:
        assert made.peaks["step"] < made.room


def test_fine_tuning_on_64_gpus() -> None:
    made = rehearse(load_recipe("sft", ["train.micro_batch_size=1"]), H100, 64)
    assert made.peaks["step"] < made.room
