"""Training with adapters: what trains, what is written, how PEFT reads it, and how a run resumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.resolve import resolve_model
from mm1.processing.processor import MM1Processor
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from mm1.train.tracking import Samples
from tests.conftest import breaking_at, tiny_documents, tiny_recipe
from tests.train.test_ranks import column, train_on_two

peft = pytest.importorskip("peft")

LORA = ["train.lora.rank=4", "train.freeze=[vision]", "train.learning_rate=0.01"]


@pytest.fixture(scope="module")
def base(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained run of two layers, so that recomputed layers have frozen ones below them."""
    content = tiny_recipe() | {"name": "base"}
    for part in ("vision", "language_model"):
        content["model"][part]["num_layers"] = 2
    content["train"] |= {"steps": 3, "warmup_steps": 1}
    folder = tmp_path_factory.mktemp("lora")
    file = folder / "base.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(corpora))
        pretrain(load_recipe(str(file)), folder / "base")
    return folder / "base"


def recipe_file(base: Path, folder: Path, **changes: Any) -> Path:
    content = yaml.safe_load((base / "recipe.yaml").read_text())
    content |= {"name": "adapted", "model": {"from": str(base)}} | changes
    content["train"] |= {"steps": 6, "warmup_steps": 0, "checkpoint_every": 2}
    del content["tokenizer"]
    file = folder / "adapted.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def adapted(base: Path, run: Path, *settings: str) -> Path:
    pretrain(load_recipe(str(recipe_file(base, run.parent)), [*LORA, *settings]), run)
    return run


def logits(model: Any, processor: MM1Processor) -> torch.Tensor:
    encoded = processor.encode(tiny_documents("interleaved", 3)[2])
    pixels = processor.normalize(torch.from_numpy(processor.pixel_values(encoded.images)))
    with torch.no_grad():
        return model.eval()(input_ids=torch.from_numpy(encoded.input_ids)[None], pixel_values=pixels).logits


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_adapter_on_its_base_is_the_merged_model(base: Path, data: Path, tmp_path: Path) -> None:
    run = adapted(base, tmp_path / "run")
    processor = MM1Processor.from_pretrained(run / "model")
    start, end = (MM1ForConditionalGeneration.from_pretrained(folder / "model") for folder in (base, run))
    before, after = logits(start, processor), logits(end, processor)
    assert (before - after).abs().max() > 0.05
    loaded = peft.PeftModel.from_pretrained(start, str(run / "adapter"))
    torch.testing.assert_close(logits(loaded, processor), after, atol=1e-3, rtol=1e-3)
    allowed = {"import_allowlist": ["mm1.model.modeling"]}
    by_name = peft.AutoPeftModel.from_pretrained(str(run / "adapter"), **allowed)  # the adapter names its base
    torch.testing.assert_close(logits(by_name, processor), after, atol=1e-3, rtol=1e-3)
    by_transformers = AutoModelForImageTextToText.from_pretrained(run / "adapter")
    own = MM1Processor.from_pretrained(run / "adapter")
    torch.testing.assert_close(logits(by_transformers, own), after, atol=1e-3, rtol=1e-3)
    # A part that trains whole is there once.
    names = load_file(run / "adapter" / "adapter_model.safetensors").keys()
    assert {name for name in names if "lora" not in name} == {
        f"base_model.model.model.connector.project.{kind}" for kind in ("weight", "bias")
    }


def test_only_adapted_layers_and_the_connector_change(base: Path, data: Path, tmp_path: Path) -> None:
    run = adapted(base, tmp_path / "run", "train.lora.alpha=6", "train.lora.targets=[q_proj,mlp.up_proj]")
    before, after = weights(base / "model"), weights(run / "model")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    layers = "model.language_model.layers"
    linear = {f"{layers}.{n}.{m}.weight" for n in range(2) for m in ("self_attn.q_proj", "mlp.up_proj")}
    assert moved == linear | {f"model.connector.project.{kind}" for kind in ("weight", "bias")}
    adapter = load_file(run / "adapter" / "adapter_model.safetensors")
    for name in linear:
        place = f"base_model.model.{name.removesuffix('weight')}"
        added = 6 / 4 * adapter[f"{place}lora_B.weight"] @ adapter[f"{place}lora_A.weight"]
        torch.testing.assert_close(after[name], before[name] + added)


def test_a_stopped_run_resumes_as_if_it_had_not_stopped(base: Path, data: Path, tmp_path: Path) -> None:
    whole = adapted(base, tmp_path / "whole")
    with breaking_at(4):
        adapted(base, tmp_path / "stopped")
    stopped = tmp_path / "stopped"
    saved = {
        name for file in (stopped / "checkpoints" / "step-000004").glob("*.safetensors") for name in load_file(file)
    }
    models = {name for name in saved if name.startswith("model.")}
    assert models
    assert all("lora_" in name or "connector" in name for name in saved)
    middle = weights(resolve_model(f"{stopped}@4"))
    adapted(base, tmp_path / "stopped")
    assert column(stopped, "loss") == column(whole, "loss")
    ends = [weights(run / "model") for run in (whole, stopped)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    of_step = weights(resolve_model(f"{stopped}@6"))
    assert all(torch.equal(ends[0][name], of_step[name]) for name in ends[0])
    assert any(not torch.equal(middle[name], of_step[name]) for name in middle)


def test_a_base_that_has_changed_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(base, own)
    with breaking_at(4):
        adapted(own, tmp_path / "run")
    (tensors := weights(own / "model"))["model.connector.project.bias"] += 1
    save_file(tensors, own / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="the model that the adapters are for has changed"):
        adapted(own, tmp_path / "run")


def test_recomputed_layers_learn_the_same(base: Path, data: Path, tmp_path: Path) -> None:
    plain = adapted(base, tmp_path / "plain", "train.freeze=[vision,connector]")
    recomputed = adapted(
        base, tmp_path / "recomputed", "train.freeze=[vision,connector]", "train.activation_checkpointing=true"
    )
    adapter = load_file(recomputed / "adapter" / "adapter_model.safetensors")
    assert all(tensor.any() for name, tensor in adapter.items() if "lora_B" in name)  # they begin at zero
    assert column(recomputed, "loss") == pytest.approx(column(plain, "loss"), rel=1e-5)


def test_a_model_put_together_from_parts_gets_a_base_of_its_own(base: Path, data: Path, tmp_path: Path) -> None:
    model = yaml.safe_load((base / "recipe.yaml").read_text())["model"]
    model["language_model"] = {"from": str(base)}
    settings = ["train.lora.rank=2", "train.lora.parts=[vision,language_model]", "train.learning_rate=0.01"]
    run = tmp_path / "run"
    pretrain(load_recipe(str(recipe_file(base, tmp_path, model=model)), settings), run)
    processor = MM1Processor.from_pretrained(run / "model")
    start, end = (MM1ForConditionalGeneration.from_pretrained(run / folder) for folder in ("base", "model"))
    loaded = peft.PeftModel.from_pretrained(start, str(run / "adapter"))
    torch.testing.assert_close(logits(loaded, processor), logits(end, processor), atol=1e-3, rtol=1e-3)
    assert any("vision_tower" in name for name in load_file(run / "adapter" / "adapter_model.safetensors"))
    written = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(run / "base")


def test_fresh_weights_that_an_older_version_drew_are_not_drawn_anew(base: Path, data: Path, tmp_path: Path) -> None:
    """They are in no checkpoint: a run goes on and is exported with the very weights that it began with, or not."""
    model = yaml.safe_load((base / "recipe.yaml").read_text())["model"]
    model["language_model"] = {"from": str(base)}
    recipe, run = recipe_file(base, tmp_path, model=model), tmp_path / "run"
    with breaking_at(4):
        pretrain(load_recipe(str(recipe), LORA), run)  # its frozen tower is fresh
    file = run / "environment.json"
    recorded = file.read_text()
    file.write_text(recorded.replace(" drawn-by-name", ""))
    for go_on in (lambda: pretrain(load_recipe(str(recipe), LORA), run), lambda: resolve_model(f"{run}@4")):
        with pytest.raises(UserError, match="an older version of mm1 drew the weights that its adapters are for"):
            go_on()
    file.write_text(recorded)
    pretrain(load_recipe(str(recipe), LORA), run)
    file.write_text(recorded.replace(" drawn-by-name", ""))  # the run has ended, and its folder has what it began with
    of_step, of_run = weights(resolve_model(f"{run}@6")), weights(run / "model")
    assert all(torch.equal(of_run[name], of_step[name]) for name in of_run)


def test_two_ranks_train_the_adapters_of_one(base: Path, data: Path, tmp_path: Path) -> None:
    one = adapted(base, tmp_path / "one")
    file = recipe_file(base, tmp_path)
    result = train_on_two(file, tmp_path / "two", data, *LORA)
    assert result.returncode == 0, result.stderr
    assert column(tmp_path / "two", "loss") == pytest.approx(column(one, "loss"), rel=2e-4)
    ours, theirs = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, tmp_path / "two"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, atol=2e-3, rtol=2e-2)


def test_scores_during_training_are_those_of_the_adapted_model(base: Path, data: Path, tmp_path: Path) -> None:
    seen = []

    def score(model: Any, processor: Any, *_: Any) -> tuple[dict[str, float], Samples]:
        seen.append(logits(model, processor))
        return {}, {}

    settings = [*LORA, "evaluate.during.every=3", "evaluate.during.tasks=[captions]"]
    run = tmp_path / "run"
    pretrain(load_recipe(str(recipe_file(base, tmp_path)), settings), run, score)
    end = logits(
        MM1ForConditionalGeneration.from_pretrained(run / "model"), MM1Processor.from_pretrained(run / "model")
    )
    torch.testing.assert_close(seen[-1], end, atol=1e-4, rtol=1e-4)
    assert (seen[0] - end).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["train.lora.targets=[q_proj,qproj]"],
            "'qproj' is no linear layer in the blocks of language_model: take some",
        ),
        (["train.lora.targets=[lm_head]"], "'lm_head' is no linear layer"),
        (["train.lora.targets=[embed_tokens]"], "'embed_tokens' is no linear layer"),
        (
            ["train.freeze=[]", "train.lora.parts=[vision,language_model]", "train.lora.targets=[up_proj]"],
            "no layer of vision gets adapters",
        ),
        (["train.lora.parts=[vision,language_model]"], "freeze and lora.parts both name vision"),
        (["train.freeze=[]", "train.lora.parts=[vision]"], "lora.parts leaves language_model out"),
        (["train.lora.rank=0"], "train.lora.rank"),
    ],
)
def test_what_can_not_train_is_refused(base: Path, data: Path, tmp_path: Path, settings: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        adapted(base, tmp_path / "run", *settings)


def test_experts_take_no_adapters(base: Path, data: Path, tmp_path: Path) -> None:
    model = yaml.safe_load((base / "recipe.yaml").read_text())["model"]
    model["language_model"] |= {"num_experts": 2, "sparse_every": 2}
    file = recipe_file(base, tmp_path, model=model)
    with pytest.raises(UserError, match="'mlp.up_proj' is a tensor of all experts"):
        pretrain(load_recipe(str(file), [*LORA, "train.lora.targets=[up_proj]"]), tmp_path / "run")
    pretrain(load_recipe(str(file), LORA), tmp_path / "attention")
    names = load_file(tmp_path / "attention" / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in names if "lora" in name} == {"q_proj", "k_proj", "v_proj", "o_proj"}
