"""Training that starts from a whole model of an earlier run, at its resolution or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.processing.processor import MM1Processor
from mm1.recipe import load_recipe
from mm1.scaling.subject import shape_of
from mm1.train.prepare import open_sequences
from mm1.train.pretrain import pretrain
from tests.conftest import tiny_documents


def shortened(recipe_file: Path, folder: Path, connector: str) -> Path:
    content = yaml.safe_load(recipe_file.read_text())
    content["train"] |= {"steps": 2, "warmup_steps": 1}
    content["model"]["connector"]["kind"] = connector
    file = folder / "first.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(params=["average_pool", "mlp"])
def first(request: Any, data: Path, recipe_file: Path, tmp_path: Path) -> Path:
    """A finished run of 16-pixel images of 2x2 patches."""
    run = tmp_path / "first"
    pretrain(load_recipe(str(shortened(recipe_file, tmp_path, request.param))), run)
    return run


def continued(recipe_file: Path, tmp_path: Path, model: dict[str, Any], **train: Any) -> Path:
    content = yaml.safe_load(recipe_file.read_text())
    content["model"] = model
    content["data"] |= {"sequence_length": 160, "images_per_sequence": 20}
    content["train"] |= {"steps": 2, "warmup_steps": 0} | train
    file = tmp_path / "second.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_weights_tokenizer_and_processor_are_the_earlier_runs(first: Path, recipe_file: Path, tmp_path: Path) -> None:
    freeze = {"freeze": ["vision", "language_model"], "learning_rate": 1e-4}
    recipe = load_recipe(str(continued(recipe_file, tmp_path, {"from": str(first)}, **freeze)))
    run = tmp_path / "second"
    pretrain(recipe, run)
    assert not (run / "tokenizer").exists()
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (first, run))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("connector" in name for name in moved)
    assert {name: p.shape for name, p in shape_of(recipe).named_parameters() if name in after} == {
        name: tensor.shape for name, tensor in after.items()
    }
    document = tiny_documents("interleaved", 3)[2]
    mine, theirs = (MM1Processor.from_pretrained(folder / "model").encode(document) for folder in (run, first))
    assert mine.input_ids.tolist() == theirs.input_ids.tolist()
    again = load_recipe(str(run / "recipe.yaml"))
    assert again.to_yaml() == recipe.to_yaml()
    assert yaml.safe_load(recipe.to_yaml())["model"] == {"from": str(first)}
    assert len(open_sequences(run)) == 8


def test_another_image_size_interpolates_the_positions(first: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "second"
    model = {"from": str(first / "model"), "vision": {"image_size": 32}}
    pretrain(load_recipe(str(continued(recipe_file, tmp_path, model))), run)
    small, large = (MM1ForConditionalGeneration.from_pretrained(folder / "model") for folder in (first, run))
    assert large.config.vision_config.image_size == 32
    assert len(large.model.vision_tower.embeddings.position_embedding.weight) == 1 + 4 * 4
    processor = MM1Processor.from_pretrained(run / "model")
    assert processor.image_size == 32
    # A token for each patch with the plain connector, else as many as before.
    assert processor.tokens_per_image == large.config.image_seq_length
    assert large.config.image_seq_length == (16 if small.config.connector == "mlp" else 4)
    plan = json.loads((run / "plan" / "plan.json").read_text())
    assert plan["tokens_per_image"] == processor.tokens_per_image


def test_sub_images_after_training_without(first: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "second"
    model = {"from": str(first), "resolution": {"grid": "2x2"}}
    pretrain(load_recipe(str(continued(recipe_file, tmp_path, model))), run)
    assert MM1Processor.from_pretrained(run / "model").rule.grid == "2x2"
    assert MM1Processor.from_pretrained(first / "model").rule.grid == "none"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"from": "x", "connector": {"num_tokens": 9}}, "brings its own connector: leave connector.num_tokens out"),
        ({"from": "x", "vision": {"patch_size": 8}}, "leave vision.patch_size out"),
        ({"from": "x", "language_model": "smollm2"}, "leave language_model.from out"),
    ],
)
def test_what_a_whole_model_brings_can_not_be_set(recipe_file: Path, tmp_path: Path, model: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(str(continued(recipe_file, tmp_path, model)))


def test_a_size_that_patches_do_not_divide(data: Path, first: Path, recipe_file: Path, tmp_path: Path) -> None:
    model = {"from": str(first), "vision": {"image_size": 30}}
    with pytest.raises(UserError, match="image_size: 30 is not a multiple of the patch size 8"):
        pretrain(load_recipe(str(continued(recipe_file, tmp_path, model))), tmp_path / "second")


def test_no_model_there(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(continued(recipe_file, tmp_path, {"from": str(tmp_path / "nothing")})))
    with pytest.raises(UserError, match="nothing"):
        pretrain(recipe, tmp_path / "second")
