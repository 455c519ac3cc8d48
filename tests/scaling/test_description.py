"""The paper's sizes hold for the packaged recipes, and what is said of a model is true of it."""

from __future__ import annotations

import io
import time

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from mm1.model import MM1ForConditionalGeneration
from mm1.model.sizes import active_parameters, forward_flops, non_embedding_parameters, parameters_by_part
from mm1.model.sparse import SparseBlock
from mm1.recipe import load_recipe, packaged_recipes
from mm1.scaling.description import Description, describe
from mm1.scaling.description_table import description_table, short
from mm1.scaling.subject import shape_of
from tests.model.builders import tiny_config


def described(name: str) -> Description:
    recipe = load_recipe(name)
    return describe(name, recipe.model, recipe.tokenizer.vocab_size, recipe.data.sequence_length)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mm1-1b", 1.2),
        ("mm1-3b", 2.9),
        ("mm1-7b", 6.4),
        ("mm1-30b", 30),
        ("mm1-3b-moe", 64),
        ("mm1-7b-moe", 47),
    ],
)
def test_decoders_have_the_papers_sizes_within_three_percent(name, billions):
    """Non-embedding sizes of dense decoders, totals of sparse ones (paper sec. 3.4)."""
    assert described(name).parameters["language_model"] == pytest.approx(billions * 1e9, rel=0.03)


@pytest.mark.parametrize(("sparse", "dense"), [("mm1-3b-moe", "mm1-3b"), ("mm1-7b-moe", "mm1-7b")])
def test_a_sparse_model_has_its_dense_backbone(sparse, dense):
    models = [shape_of(load_recipe(name)) for name in (sparse, dense)]
    assert non_embedding_parameters(models[0]) == non_embedding_parameters(models[1])
    assert sum(isinstance(m, SparseBlock) for m in models[0].modules()) == (18 if sparse == "mm1-3b-moe" else 8)
    for part in ("vision", "connector", "embeddings"):
        assert parameters_by_part(models[0])[part] == parameters_by_part(models[1])[part]


def test_the_towers_are_vit_l_and_vit_h():
    base, final = described("mm1-1b"), described("mm1-30b")
    assert (base.image_size, base.patches, base.tokens_per_image) == (336, 576, 144)
    assert (final.image_size, final.patches, final.tokens_per_image) == (378, 729, 144)
    assert base.parameters["vision"] == pytest.approx(304e6, rel=0.01)
    assert final.parameters["vision"] == pytest.approx(632e6, rel=0.01)


@pytest.mark.parametrize("name", [name for name in packaged_recipes() if name.startswith("mm1-")])
def test_any_model_is_described_in_seconds(name):
    start = time.monotonic()
    description = described(name)
    assert time.monotonic() - start < 20
    total = sum(description.parameters.values())
    assert sum(description.training_bytes.values()) == 16 * total
    active = sum(description.active_parameters.values())
    assert (active < total) == ("moe" in name)


def test_flops_are_what_torch_counts():
    """At a context of one token, where attention is next to nothing."""
    model = MM1ForConditionalGeneration(shape_of(load_recipe("mm1-tiny")).config).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.arange(4, 12)[None])
    ours = 8 * forward_flops(model, 8)["token"]
    assert counter.get_total_flops() == pytest.approx(ours, rel=0.05)


def test_active_parameters_leave_out_idle_experts():
    config = tiny_config(moe_num_experts=5, moe_every=2, moe_top_k=2)
    model = MM1ForConditionalGeneration(config)
    expert = 3 * 32 * 64
    idle = parameters_by_part(model)["language_model"] - active_parameters(model)["language_model"]
    assert idle == 3 * expert
    dense = MM1ForConditionalGeneration(tiny_config())
    assert non_embedding_parameters(model) == non_embedding_parameters(dense)


def test_the_tiny_model_trains():
    model = MM1ForConditionalGeneration(shape_of(load_recipe("mm1-tiny")).config)
    ids = torch.tensor([[5, *[model.config.image_token_id] * 4, 7, 9]])
    model(ids, torch.randn(1, 3, 32, 32), labels=ids).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_recipe_is_described_and_shown():
    description = described("demo")
    assert description.parameters["embeddings"] == 2048 * 192
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(description_table(description))
    text = console.export_text()
    for wanted in ("demo", "vision tower", "827 k", "16 tokens per image", "FLOPs per token"):
        assert wanted in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (12_340, "12.3 k"), (999_600, "1.00 M"), (64_205_000_000, "64.2 G")],
)
def test_numbers_are_short(number, text):
    assert short(number) == text
