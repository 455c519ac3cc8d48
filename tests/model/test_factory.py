"""From a recipe to a model: sizes, seeds, pre-trained decoders, what can not be built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, CLIPConfig, CLIPModel, PreTrainedConfig

from mm1.errors import UserError
from mm1.model import build_model, non_embedding_parameters, parameters_by_part
from mm1.model.fresh import build_fresh
from mm1.recipe import VIT_SIZES, ModelRecipe, VisionRecipe, load_recipe

from .builders import embedding_matrix, tiny_recipe
from .test_sparse import FAMILIES, family


def recipe(**language_model: Any) -> ModelRecipe:
    return tiny_recipe(language_model=language_model)


def test_the_demo_has_its_size_and_its_parts_add_up():
    model = build_model(load_recipe("demo").model, vocab_size=2048, image_token_id=3)
    parts = parameters_by_part(model)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    assert 2.5e6 < sum(parts.values()) < 3.2e6
    width, ffn = 192, 512
    assert parts["embeddings"] == 2048 * width  # tied
    assert parts["language_model"] == 4 * (4 * width**2 + 3 * width * ffn + 2 * width) + width
    assert non_embedding_parameters(model) == parts["language_model"]


def test_untied_embeddings_count_twice():
    parts = parameters_by_part(build_model(recipe(tie_embeddings=False), vocab_size=64, image_token_id=3))
    assert parts["embeddings"] == 2 * 64 * 32


def test_the_seed_fixes_the_weights_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one = build_model(recipe(), vocab_size=64, image_token_id=3, seed=7)
    assert torch.equal(torch.rand(1), expected)
    two = build_model(recipe(), vocab_size=64, image_token_id=3, seed=7)
    other = build_model(recipe(), vocab_size=64, image_token_id=3, seed=8)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize(
    "changes",
    [
        {"connector": {"kind": "attention_pool"}},
        {"connector": {"kind": "c_abstractor", "hidden_size": 8}},
        {"connector": {"kind": "mlp", "num_tokens": 16}},
        {"connector": {"num_tokens": 1}},
        {"vision": {"image_size": 32}},
        {"vision": {"hidden_size": 32}},
        {"language_model": {"num_layers": 3}},
        {"language_model": {"num_experts": 4}},
    ],
    ids=str,
)
def test_parameters_of_equal_name_and_shape_start_equal(changes):
    """Whatever else differs between two recipes of one seed."""
    recipes = tiny_recipe(), tiny_recipe(**changes)
    one, other = (
        dict(build_model(some, vocab_size=64, image_token_id=3, seed=7).named_parameters()) for some in recipes
    )
    shared = {name for name, parameter in one.items() if name in other and parameter.shape == other[name].shape}
    assert all(torch.equal(one[name], other[name]) for name in shared)
    part = next(iter(changes)).replace("vision", "vision_tower")
    assert {name for name in one if part not in name and "connector" not in name} <= shared
    assert {name for name in one if f"{part}.layers.0." in name and "experts" not in changes[part]} <= shared


def test_every_parameter_has_random_numbers_of_its_own():
    """Of two that are drawn, none has a beginning that another has, even if one is longer or wider."""
    model = build_model(recipe(num_experts=2), vocab_size=64, image_token_id=3)
    drawn = [p.flatten()[:16] / p.std() for p in model.parameters() if p.numel() > 1 and p.std() > 0]
    assert len(drawn) > 20
    similar = torch.corrcoef(torch.stack(drawn)).fill_diagonal_(0)
    assert similar.max() < 0.9


def test_sub_models_and_plain_modules_are_drawn_by_their_own_rules():
    """Their mean squares are those of the library's and of torch's own initialisation."""

    def build():
        small = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 2}
        return nn.Sequential(nn.Linear(300, 200), CLIPModel(CLIPConfig(text_config=small, vision_config=small)))

    torch.manual_seed(0)
    theirs, ours = build(), build_fresh(build, seed=0)
    for (name, mine), parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        scales = mine.square().mean(), parameter.square().mean()
        torch.testing.assert_close(*scales, rtol=0.2, atol=1e-9, msg=name)
    assert sum(parameter.ndim == 0 for parameter in ours.parameters()) == 1  # the scale, which nothing draws
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))


@pytest.mark.parametrize("kind", ["average_pool", "attention_pool", "c_abstractor"])
def test_fresh_weights_start_near_the_uniform_guess(kind):
    """The first loss of a model from scratch is close to ln(vocabulary)."""
    demo = load_recipe("demo", [f"model.connector.kind={kind}", "model.connector.hidden_size=64"]).model
    model = build_model(demo, vocab_size=2048, image_token_id=3)
    ids = torch.randint(4, 2048, (2, 24))
    ids[:, 1:17] = 3
    loss = model(ids, torch.randn(2, 3, 64, 64), labels=ids).loss
    assert abs(loss.item() - torch.tensor(2048.0).log()) < 0.3


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_from_scratch_and_pretrained(name, tmp_path):
    scratch = build_model(recipe(architecture=name), vocab_size=64, image_token_id=3, eos_token_id=2, pad_token_id=0)
    assert scratch.config.text_config.model_type == name
    assert scratch.config.text_config.eos_token_id == 2
    torch.manual_seed(0)
    decoder = AutoModelForCausalLM.from_config(family(name)).eval()
    decoder.save_pretrained(tmp_path)
    model = build_model(recipe(**{"from": str(tmp_path)}), vocab_size=60, image_token_id=3, pad_token_id=0).eval()
    ids = torch.randint(4, 64, (2, 9))
    torch.testing.assert_close(model(ids).logits, decoder(ids).logits)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("tokenizer", "rows"), [(50, 64), (64, 64), (70, 70)])
def test_the_vocabulary_grows_only_where_needed(tied, tokenizer, rows, tmp_path):
    decoder = AutoModelForCausalLM.from_config(family("llama", tie_word_embeddings=tied)).eval()
    decoder.save_pretrained(tmp_path)
    model = build_model(recipe(**{"from": str(tmp_path)}), vocab_size=tokenizer, image_token_id=tokenizer - 1)
    embedding = embedding_matrix(model)
    assert model.config.text_config.vocab_size == len(embedding) == len(model.lm_head.weight) == rows
    assert torch.equal(embedding[1:64], decoder.get_input_embeddings().weight[1:])
    assert (embedding.data_ptr() == model.lm_head.weight.data_ptr()) is tied
    ids = torch.randint(4, min(64, tokenizer) - 1, (1, 9))
    torch.testing.assert_close(model.eval()(ids).logits[..., :64], decoder(ids).logits)
    model(ids, labels=ids).loss.backward()
    assert (model.lm_head.weight.data_ptr() == embedding_matrix(model).data_ptr()) is tied


def test_named_sizes_of_towers():
    assert VisionRecipe(size="vit-h-14").num_layers == 32
    assert set(VIT_SIZES) >= {"vit-tiny", "vit-h-14"}
    again = VisionRecipe.model_validate(VisionRecipe(size="vit-tiny").model_dump(by_alias=True))
    assert again.hidden_size == 192
    with pytest.raises(ValidationError, match=r"vit-huge.*unknown"):
        VisionRecipe(size="vit-huge")
    with pytest.raises(ValidationError, match="vit-tiny sets hidden_size to 192, not 128"):
        VisionRecipe(size="vit-tiny", hidden_size=128)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 30}, "hidden_size 30 is not a multiple of num_heads 4"),
        ({"hidden_size": 20}, "a head of 5 channels"),
        ({"num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"from": "/nowhere"}, "model.language_model.from: '/nowhere' is no model"),
    ],
)
def test_a_decoder_that_can_not_be_is_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        build_model(recipe(**changes), vocab_size=64, image_token_id=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, "image_size 30 is not a multiple of patch_size 4"),
        ({"num_heads": 3}, "hidden_size 16 is not a multiple of num_heads 3"),
    ],
)
def test_a_tower_that_can_not_be_is_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        build_model(tiny_recipe(vision=changes), vocab_size=64, image_token_id=3)


def small(architecture: str, **more: int) -> PreTrainedConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return AutoConfig.for_model(architecture, vocab_size=64, **sizes, **more)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (small("phi"), "another vocabulary head"),
        (small("gemma2", num_key_value_heads=1, head_dim=8), "final_logit_softcapping"),
    ],
)
def test_a_decoder_with_another_head_is_refused(config, message, tmp_path):
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        build_model(recipe(**{"from": str(tmp_path)}), vocab_size=64, image_token_id=3)


def test_a_broken_checkpoint_is_one_sentence(tmp_path):
    AutoModelForCausalLM.from_config(small("llama")).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="can't be loaded"):
        build_model(recipe(**{"from": str(tmp_path)}), vocab_size=64, image_token_id=3)
