"""What a rehearsal finds, and what the command makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError
from mm1.recipe import Recipe, load_recipe
from mm1.recipe.vit_sizes import VIT_SIZES
from mm1.rehearse.rehearsal import Rehearsal, rehearse
from mm1.scaling.budget import RESERVE, Layout, _activations, _memory
from mm1.scaling.gpus import GPU, GPUS, gpu
from mm1.scaling.subject import as_trained, shape_of
from mm1.scaling.weights import Weights, bytes_sent
from mm1.scaling.workload import recipe_workload

SMALL = ["data.sequence_length=64", "data.images_per_sequence=2", "train.batch_size=8", "train.micro_batch_size=1"]
H100 = gpu("h100")
AGREEMENT = 0.05
"""Of the budget with the rehearsal."""


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
        "the host never waits for the GPU",
        "target_positions",
        "fits:",
    ):
        assert wanted in result.output


def test_the_command_fails_where_the_host_must_not_wait() -> None:
    result = run("--gpus", "2", "--json")
    found = json.loads(result.output)
    assert result.exit_code == (1 if found["stalls"] else 0)
    assert found["does_not_fit"] == []
    assert found["peaks"]["step"] == sum(found["memory"]["step"].values())
    assert found["sent"]["shard reduce-scatter"] > 0


def test_the_command_allows_the_wait_for_experts() -> None:
    result = run("--gpus", "4", "--set", "model.language_model.num_experts=4")
    assert result.exit_code == 0
    assert "all to learn how many tokens go to which experts" in result.output
    assert "all-to-all" in result.output


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
    once, often = (tiny("train.replicas=2", f"train.batch_size={size}", gpus=4).seen for size in (8, 32))
    assert once.sent["shard", "reduce-scatter"] > 0
    # Replicas add up once a step, the ranks of a replica in every micro-batch.
    replicate = "replicate", "all-reduce"
    assert once.sent[replicate] == often.sent[replicate] > 0
    assert once.calls[replicate] == often.calls[replicate]
    assert often.sent["shard", "reduce-scatter"] == 4 * once.sent["shard", "reduce-scatter"]


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


LAYERS = 4
"""Of towers and decoders that are rehearsed in part."""


def with_low_towers(patch: pytest.MonkeyPatch) -> None:
    for name, sizes in VIT_SIZES.items():
        patch.setitem(VIT_SIZES, name, {**sizes, "num_layers": LAYERS})


@pytest.mark.parametrize("name", ["mm1-7b", "mm1-3b-moe"])
def test_whole_recipes_fit_64_gpus_and_the_budget_agrees(name: str) -> None:
    """The budget counts by formulas, which take less time; the rehearsal runs the code."""
    recipe = load_recipe(name, ["train.compile=false"])
    made = rehearse(recipe, H100, 64)
    assert made.too_large == []
    sent = agrees(recipe, made, made.peaks["step"])
    if name == "mm1-3b-moe":
        assert sent / made.seen.micro_batches < 20e9


@pytest.mark.parametrize("name", ["mm1-1b", "mm1-3b", "mm1-30b", "sft", "mm1-7b-moe"])
def test_other_recipes_fit_64_gpus_by_a_budget_that_agrees_with_some_of_their_layers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(name, ["train.compile=false"])
    micro = recipe.train.micro_batch_size
    assert micro
    whole, _ = budgeted(recipe, 64, micro, recipe.train.batch_size // (64 * micro))
    assert whole < (1 - RESERVE) * H100.memory / (1 + AGREEMENT)
    low = [f"model.language_model.num_layers={LAYERS}"]
    if recipe.model.vision.size is None:
        low.append(f"model.vision.num_layers={LAYERS}")
    with_low_towers(monkeypatch)
    recipe = load_recipe(name, ["train.compile=false", *low])
    agrees(recipe, rehearse(recipe, H100, 64), whole)


def agrees(recipe: Recipe, made: Rehearsal, whole: float) -> float:
    """Check that the budget is what was rehearsed; return the bytes that a GPU sends.

    Args:
        recipe: The recipe.
        made: Its rehearsal.
        whole: Bytes on a GPU with all layers. By so much of it the budget may say too much: it adds peaks of which few
            layers may have one alone.
    """
    # How many tokens go to whom is known on the device alone: the host reads it once per sparse layer.
    assert made.needless_stalls == {}
    layers = shape_of(recipe).config.text_config.num_hidden_layers
    sparse = layers // recipe.model.language_model.sparse_every if recipe.model.language_model.num_experts else 0
    assert sum(made.seen.stalls.values()) == sparse * made.seen.micro_batches
    memory, moved = budgeted(recipe, made.gpus, made.micro_batch, made.seen.micro_batches)
    peak = made.peaks["step"]
    assert (1 - AGREEMENT) * peak < memory < peak + AGREEMENT * whole
    sent = sum(sent for (dimension, _), sent in made.seen.sent.items() if dimension != "host")
    assert moved == pytest.approx(sent, rel=AGREEMENT)
    return sent


def test_the_budget_of_one_gpu_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    with_low_towers(monkeypatch)
    settings = ["train.compile=false", "train.micro_batch_size=1", f"model.language_model.num_layers={LAYERS}"]
    recipe = load_recipe("mm1-1b", settings)
    made = rehearse(recipe, H100, 1)
    memory, _ = budgeted(recipe, 1, made.micro_batch, made.seen.micro_batches)
    assert memory == pytest.approx(made.peaks["step"], rel=AGREEMENT)


def budgeted(recipe: Recipe, gpus: int, micro_batch: int, micro_batches: int) -> tuple[float, float]:
    """Return the bytes on a GPU and the bytes it sends, as the budget counts them for a layout."""
    model = as_trained(recipe)
    weights = Weights.of(model, recipe, gpus)
    recompute = recipe.train.activation_checkpointing
    layout = Layout(gpus, 1, micro_batch, micro_batches, recompute)
    workload = recipe_workload(recipe, model.config.image_seq_length)
    activations = _activations(recipe, workload, gpus, recompute, several=micro_batch > 1)
    sent = bytes_sent(weights, 1, layout.micro_batches, micro_batch * workload.length, recompute)
    return _memory(weights, layout, activations).total, sum(sent)
