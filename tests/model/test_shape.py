"""The configuration of a recipe's model without its weights: that of the model which is built with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
)

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.model.resolve import resolve_models
from mm1.model.shape import recipe_config
from mm1.recipe import ModelRecipe, load_recipe

from .builders import tiny_recipe
from .test_sparse import family
from .test_towers import SIZES, TEXT, TOWERS, random_tower


def assert_same_shape(recipe: ModelRecipe, vocab_size: int = 64) -> None:
    with torch.device("meta"):
        shape = MM1ForConditionalGeneration(recipe_config(recipe, vocab_size))
    built = build_model(recipe, vocab_size=vocab_size, image_token_id=vocab_size - 1)
    assert {n: p.shape for n, p in shape.named_parameters()} == {n: p.shape for n, p in built.named_parameters()}
    assert shape.config.image_seq_length == built.config.image_seq_length
    assert shape.config.patch_grid == built.config.patch_grid


@pytest.mark.parametrize("image_size", [16, 24])
@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_from_weights(name: str, image_size: int, tmp_path: Path) -> None:
    random_tower(name).save_pretrained(tmp_path)
    assert_same_shape(tiny_recipe(vision={"from": str(tmp_path), "image_size": image_size}))


@pytest.mark.parametrize(
    ("model", "config"), [(CLIPModel, CLIPConfig), (SiglipModel, SiglipConfig)], ids=["clip", "siglip"]
)
def test_the_vision_half_of_two_towers(
    model: type[PreTrainedModel], config: Callable[..., PreTrainedConfig], tmp_path: Path
) -> None:
    vision = SIZES | {"intermediate_size": 32}
    model(config(vision_config=vision, text_config=TEXT | {"vocab_size": 50})).save_pretrained(tmp_path)
    assert_same_shape(tiny_recipe(vision={"from": str(tmp_path)}))


@pytest.mark.parametrize("experts", [{}, {"num_experts": 4, "upcycle": True}])
@pytest.mark.parametrize("vocab_size", [50, 70])
def test_a_decoder_from_weights(vocab_size: int, experts: dict[str, int], tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(family("llama")).save_pretrained(tmp_path)
    assert_same_shape(tiny_recipe(language_model={"from": str(tmp_path), **experts}), vocab_size)


@pytest.mark.parametrize(("kind", "tokens"), [("average_pool", 4), ("mlp", 16)])
def test_a_whole_model_at_another_image_size(kind: str, tokens: int, tmp_path: Path) -> None:
    recipe = tiny_recipe(connector={"kind": kind, "num_tokens": tokens})
    built = build_model(recipe, vocab_size=64, image_token_id=3)
    built.save_pretrained(tmp_path)
    size = 2 * built.config.vision_config.image_size
    assert_same_shape(ModelRecipe.model_validate({"from": str(tmp_path), "vision": {"image_size": size}}))
    with pytest.raises(UserError, match=r"model\.vision\.image_size: 33 is not a multiple of the patch size"):
        recipe_config(ModelRecipe.model_validate({"from": str(tmp_path), "vision": {"image_size": 33}}), 64)


def test_what_is_not_there_is_no_question_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for source in ("runs/clip", "models/clip", "/nowhere", "a/b/c"):
        with pytest.raises(UserError, match=f"'{source}' is no model: no such folder: make it first"):
            resolve_models(load_recipe("demo", [f"model.vision.from={source}"]))
