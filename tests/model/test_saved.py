"""A model's folder that is damaged or lacks weights is one sentence wherever it is loaded, and never answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CLIPConfig, CLIPModel, LlamaConfig

from mm1.encoder.features import Encoder
from mm1.errors import UserError
from mm1.evaluate.models.loading import load_generator
from mm1.export.check import load
from mm1.model.factory import load_decoder, load_whole
from mm1.model.processor import brought_processor
from mm1.recipe import ModelRecipe

SAVED = Path(__file__).parent / "saved"
GONE = "model.language_model.layers.0.mlp.down_proj.weight"

WEIGHTS: dict[str, Callable[[str], Any]] = {
    "load_generator": load_generator,
    "model.from": lambda folder: load_whole(folder, None, 1),
    "model.language_model.from": lambda folder: load_decoder(folder, 1, 0),
    "export": lambda folder: load(Path(folder)),
}
PROCESSORS: dict[str, Callable[[str], Any]] = {
    "load_generator": load_generator,
    "model.from": lambda folder: brought_processor(folder, ModelRecipe()),
    "export": lambda folder: load(Path(folder)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAVED / "plain", tmp_path / "model"))


def without(folder: Path, name: str) -> None:
    """Take a weight out of a folder's file."""
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("door", WEIGHTS)
def test_a_model_that_lacks_weights(folder: Path, door: str) -> None:
    """The library would draw them at random."""
    WEIGHTS[door](str(folder))
    without(folder, GONE)
    with pytest.raises(UserError, match=rf"lacks 1 of its tensors, the first is {GONE}: copy, pull or export"):
        WEIGHTS[door](str(folder))


@pytest.mark.parametrize("door", WEIGHTS)
@pytest.mark.parametrize("size", [0, 4, 1000, -1])
def test_weights_that_are_cut_off(folder: Path, door: str, size: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match="can't be loaded"):
        WEIGHTS[door](str(folder))


@pytest.mark.parametrize("door", WEIGHTS)
def test_weights_of_another_shape(folder: Path, door: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[GONE] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="can't be loaded"):
        WEIGHTS[door](str(folder))


@pytest.mark.parametrize("door", PROCESSORS)
@pytest.mark.parametrize("content", [None, "", "{", '{"version": 1}', "[]"])
def test_a_damaged_tokenizer(folder: Path, door: str, content: str | None) -> None:
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="no processor that can be loaded"):
        PROCESSORS[door](str(folder))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "mm1", "text_config": 3}'])
def test_a_damaged_configuration(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config.json that can|can't be loaded"):
        load_generator(folder)


def test_other_families(tmp_path: Path) -> None:
    sizes: Any = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=9, **sizes)).save_pretrained(tmp_path / "llama")
    name = "model.layers.0.mlp.up_proj.weight"
    without(tmp_path / "llama", name)
    with pytest.raises(UserError, match=rf"lacks 1 of its tensors, the first is {name}"):
        load_decoder(str(tmp_path / "llama"), 9, 0)
    towers: Any = {"vision_config": {**sizes, "image_size": 16, "patch_size": 8}, "text_config": {**sizes}}
    CLIPModel(CLIPConfig(**towers)).save_pretrained(tmp_path / "clip")
    without(tmp_path / "clip", "visual_projection.weight")
    with pytest.raises(UserError, match=r"lacks 1 of its tensors, the first is visual_projection.weight"):
        Encoder(tmp_path / "clip", torch.device("cpu"))
