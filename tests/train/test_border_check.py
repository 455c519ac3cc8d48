"""A run whose attention crosses the borders of documents does not begin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.train.border_check import check_borders
from mm1.train.pretrain import pretrain
from tests.model.builders import tiny_model
from tests.train.forked import mm1

AttentionInterface.register("leaky", sdpa_attention_forward)
AttentionMaskInterface.register("leaky", lambda *args, **kwargs: None)  # the mask is dropped


@pytest.mark.parametrize("attention", ["sdpa", "eager", "varlen", "sdpa_packed"])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("experts", [0, 4])
def test_attention_inside_documents_passes(attention: str, autocast: torch.dtype | None, experts: int) -> None:
    model = tiny_model(moe_num_experts=experts, moe_every=1).train()
    model.set_attn_implementation({"text_config": attention})
    check_borders(model, attention, autocast)
    assert model.training


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("experts", [0, 4])
def test_a_dropped_mask_is_found(autocast: torch.dtype | None, experts: int) -> None:
    model = tiny_model(moe_num_experts=experts, moe_every=1)
    model.set_attn_implementation({"text_config": "leaky"})
    with pytest.raises(UserError, match="leaky lets the documents of a sequence see each other on cpu"):
        check_borders(model, "leaky", autocast)


def test_a_run_with_such_an_attention_does_not_begin(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm1.train.pretrain.usable_attention", lambda *_: "leaky")
    with pytest.raises(UserError, match="see each other"):
        pretrain(load_recipe(str(recipe_file)), tmp_path / "run")
    # Where the recipe lets attention cross the borders, there is nothing to check.
    pretrain(load_recipe(str(recipe_file), ["data.document_mask=false", "train.steps=3"]), tmp_path / "across")


def test_varlen_trains_as_sdpa_does(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    losses = {}
    for name in ("sdpa", "varlen"):
        setting = f"model.language_model.attention={name}"
        done = mm1("pretrain", recipe_file, "--to", tmp_path / name, "--set", setting)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses[name] = [json.loads(line)["loss"] for line in lines]
    assert losses["varlen"] == pytest.approx(losses["sdpa"], rel=1e-5)
