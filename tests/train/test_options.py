"""Every option of a recipe's `train` section does what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.plan.loader import build_loader
from mm1.processing.processor import MM1Processor
from mm1.recipe import TrainRecipe, load_recipe
from mm1.scaling.law import PAPER_LAW
from mm1.train.objective import language_model_loss
from mm1.train.optimizer import build_optimizer
from mm1.train.prepare import open_sequences
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at


def train(recipe_file: Path, run: Path, *settings: str) -> list[dict]:
    pretrain(load_recipe(str(recipe_file), settings), run)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(lines: list[dict]) -> list[float]:
    return [line["loss"] for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_frozen_parts_stay_as_they_were_built(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    short = ["train.steps=3", "train.warmup_steps=1"]
    train(recipe_file, tmp_path / "free", *short)
    lines = train(recipe_file, tmp_path / "frozen", *short, "train.freeze=[vision, connector]")
    train(recipe_file, tmp_path / "nothing", "train.steps=2", "train.warmup_steps=1", "train.learning_rate=1e-30")
    free, frozen, built = (weights(tmp_path / name) for name in ("free", "frozen", "nothing"))
    tower = [name for name in built if "vision_tower" in name or "connector" in name]
    assert all(torch.allclose(frozen[name], built[name], atol=1e-12) for name in tower)
    assert not any(torch.allclose(free[name], built[name], atol=1e-12) for name in tower)
    rest = built.keys() - set(tower)
    assert not any(torch.allclose(frozen[name], built[name], atol=1e-12) for name in rest)
    assert "grad_norm/vision" not in lines[-1]


def test_recomputed_activations_change_nothing(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    plain = train(recipe_file, tmp_path / "plain")
    again = train(recipe_file, tmp_path / "again", "train.activation_checkpointing=true")
    assert losses(again) == pytest.approx(losses(plain), rel=1e-6)


def test_adafactor_learns_and_goes_on_exactly(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    setting = "train.optimizer=adafactor"
    whole = train(recipe_file, tmp_path / "whole", setting)
    assert losses(whole)[-1] < losses(whole)[0]
    with breaking_at(6):
        train(recipe_file, tmp_path / "broken", setting)
    assert losses(train(recipe_file, tmp_path / "broken", setting)) == losses(whole)


def test_norms_biases_and_embeddings_may_go_undecayed() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.language_model = nn.ModuleList([nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)])

    model = Model()
    decayed = {
        everything: {
            id(p)
            for group in build_optimizer(model, TrainRecipe(decay_everything=everything), 1e-3).param_groups
            if group["weight_decay"]
            for p in group["params"]
        }
        for everything in (True, False)
    }
    assert decayed[True] == {id(p) for p in model.parameters()}
    assert decayed[False] == {id(model.language_model[2].weight)}


def test_every_nth_checkpoint_stays(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    settings = ["train.checkpoint_every=2", "train.keep_checkpoints=1", "train.keep_every=4"]
    train(recipe_file, tmp_path / "run", *settings)
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-000004", "step-000008", "step-000012"]


def test_the_learning_rate_is_the_laws_unless_given(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    short = ["train.steps=2", "train.warmup_steps=1", "train.final_learning_rate=1"]
    lines = train(recipe_file, tmp_path / "law", *short)
    parts = json.loads((tmp_path / "law" / "environment.json").read_text())["parameters"]
    assert lines[-1]["learning_rate"] == pytest.approx(PAPER_LAW(parts["language_model"]))
    assert train(recipe_file, tmp_path / "own", *short, "train.learning_rate=3e-4")[-1]["learning_rate"] == 3e-4


def test_bfloat16_keeps_weights_and_optimizer_in_float32(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    plain = train(recipe_file, tmp_path / "plain")
    mixed = train(recipe_file, tmp_path / "mixed", "train.dtype=bfloat16")
    assert losses(mixed) != losses(plain)
    assert losses(mixed) == pytest.approx(losses(plain), rel=0.01)
    tensors: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "mixed" / "checkpoints" / "step-000012").glob("*.safetensors"):
        tensors |= load_file(file)
    assert any(name.startswith("optimizer.") and name.endswith("exp_avg_sq") for name in tensors)
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float32}
    assert {tensor.dtype for tensor in weights(tmp_path / "mixed").values()} == {torch.float32}


def test_compiled_blocks_give_the_same_losses_without_a_graph_break(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(recipe_file, tmp_path / "plain", "train.steps=6")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # All of torch.compile but the code generation, which takes minutes: graphs, guards, autograd.
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_(self, backend="aot_eager"))
    compiled = train(recipe_file, tmp_path / "compiled", "train.steps=6", "train.compile=true")
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] >= 2
    assert not counters["graph_break"]
    ours, theirs = weights(tmp_path / "compiled"), weights(tmp_path / "plain")
    assert ours.keys() == theirs.keys()


def test_z_loss_is_what_its_formula_says(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    pretrain(load_recipe(str(recipe_file), ["train.steps=1", "train.warmup_steps=0"]), tmp_path / "run")
    model = MM1ForConditionalGeneration.from_pretrained(tmp_path / "run" / "model")
    processor = MM1Processor.from_pretrained(tmp_path / "run" / "model")
    batch = next(iter(build_loader(open_sequences(tmp_path / "run"), 0, 4)))
    inputs = {key: batch[key] for key in ("input_ids", "position_ids", "image_positions", "target_positions")}
    logits = model(**inputs, pixel_values=processor.normalize(batch["pixel_values"])).logits
    plain = language_model_loss(model, processor, batch)
    held = language_model_loss(model, processor, batch, z_loss=0.01)
    expected = sum(math.log(sum(math.exp(x) for x in row)) ** 2 for row in logits.tolist())
    assert (held.total - plain.total).item() == pytest.approx(0.01 * expected, rel=1e-3)
    assert plain.total.item() == pytest.approx(F.cross_entropy(logits, batch["target_ids"], reduction="sum").item())


def test_z_loss_holds_the_partition_down(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    plain = train(recipe_file, tmp_path / "plain")
    held = train(recipe_file, tmp_path / "held", "train.z_loss=0.1")
    assert losses(held)[0] == losses(plain)[0]  # what is logged is the cross entropy alone
    assert losses(held)[1:] != losses(plain)[1:]


def test_routers_are_in_the_log(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    experts = ["model.language_model.num_experts=4", "model.language_model.sparse_every=1"]
    lines = train(recipe_file, tmp_path / "run", *experts)
    assert losses(lines)[-1] < losses(lines)[0]
    for line in lines:
        assert 0 <= line["router/smallest_load"] <= 0.25 <= line["router/largest_load"] <= 0.5 + 1e-6
        assert line["router/balance"] > 0
        assert sum(line[f"router/load/{expert}"] for expert in range(4)) == pytest.approx(1, abs=1e-4)


def test_undefined_gradients_are_skipped_then_stop_the_run(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = torch.Tensor.backward
    calls = []

    def poisoned(self, *args, **kwargs):
        calls.append(1)
        backward(self * (float("nan") if len(calls) in bad else 1.0), *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", poisoned)
    bad = {3, 4}
    lines = train(recipe_file, tmp_path / "some")
    assert lines[-1]["bad_steps"] == 2
    calls.clear()
    bad = set(range(1, 100))
    with pytest.raises(UserError, match="gradients of 10 steps in a row are infinite or undefined"):
        train(recipe_file, tmp_path / "all")
    calls.clear()
    with pytest.raises(UserError, match=r"step 2: the gradients of 2 steps in a row"):
        train(recipe_file, tmp_path / "two", "train.max_bad_steps=2")
