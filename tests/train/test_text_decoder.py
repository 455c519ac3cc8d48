"""Text pre-training of a decoder alone, and a multimodal training that starts from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mm1.model.factory import build_model
from mm1.model.resolve import resolve_models
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain


@pytest.mark.parametrize("size", ["1b", "3b"])
def test_the_packaged_recipes_train_the_decoders_of_the_multimodal_ones(size: str) -> None:
    text, both = load_recipe(f"text-{size}"), load_recipe(f"mm1-{size}")
    assert text.model.language_model == both.model.language_model
    assert text.tokenizer == both.tokenizer
    assert text.data.sequence_length == both.data.sequence_length
    assert text.data.mixture["text"].sources == both.data.mixture["text"].sources
    tokens = text.train.steps * text.train.batch_size * text.data.sequence_length
    assert tokens == pytest.approx(2e12, rel=1e-5)  # paper, table 2


def test_a_decoder_is_trained_on_text_alone_and_taken(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(recipe_file.read_text())
    content["model"]["vision"] = {
        "image_size": 14,
        "patch_size": 14,
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 1,
    }
    content["model"]["connector"]["num_tokens"] = 1
    content["data"]["mixture"] = {"text": content["data"]["mixture"]["text"]}
    content["train"]["freeze"] = ["vision", "connector"]
    text_file = tmp_path / "text.yaml"
    text_file.write_text(yaml.safe_dump(content))
    first = load_file(pretrain(load_recipe(str(text_file)), tmp_path / "text") / "model.safetensors")

    content = yaml.safe_load(recipe_file.read_text())
    content["model"]["language_model"] = {"from": str(tmp_path / "text")}
    both_file = tmp_path / "both.yaml"
    both_file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(str(both_file), ["train.steps=3"])
    words = len(first["model.language_model.embed_tokens.weight"])
    model = build_model(resolve_models(recipe).model, vocab_size=words, image_token_id=3)
    own = model.state_dict()
    decoder = [name for name in first if name.startswith("model.language_model.")]
    assert decoder
    assert all(torch.equal(own[name], first[name]) for name in decoder)
    second = pretrain(recipe, tmp_path / "both")
    assert (tmp_path / "both" / "metrics.jsonl").is_file()
    assert load_file(second / "model.safetensors").keys() > set(decoder)
