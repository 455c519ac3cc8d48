from __future__ import annotations

from pathlib import Path

import pytest

from mm1.errors import UserError
from mm1.recipe import EncoderRecipe, Recipe, load_recipe, packaged_recipes


def test_packaged_recipes_are_valid_and_survive_being_written_out(tmp_path: Path) -> None:
    for name in packaged_recipes():
        schema = EncoderRecipe if name.startswith(("clip-", "aim-")) else Recipe
        recipe = load_recipe(name, schema=schema)
        file = tmp_path / "again.yaml"
        file.write_text(recipe.to_yaml())
        assert load_recipe(str(file), schema=schema) == recipe


def test_another_sort_of_recipe_is_named() -> None:
    with pytest.raises(UserError, match="clip-demo: this is an encoder's recipe: train it with `mm1 encoder`"):
        load_recipe("clip-demo")
    with pytest.raises(UserError, match=r"demo: unknown key 'model\.connector': known keys here: from, vision, text"):
        load_recipe("demo", schema=EncoderRecipe)


def test_overrides_and_short_forms() -> None:
    recipe = load_recipe("demo", ["train.steps=300", "model.language_model=smollm2", "train.betas=[0.9, 0.99]"])
    assert recipe.train.steps == 300
    assert recipe.train.betas == (0.9, 0.99)
    assert recipe.model.language_model.from_ == "smollm2"


def test_a_recipe_may_start_from_another(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: demo\nname: mine\ntrain: {steps: 77}\n")
    recipe = load_recipe(str(file))
    assert (recipe.name, recipe.train.steps) == ("mine", 77)
    assert recipe.train.batch_size == load_recipe("demo").train.batch_size


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=3", "unknown key 'train.stepz': did you mean 'steps'"),
        ("data.mixture.caption.sources=[{corpos: x}]", "sources.0.corpos': did you mean 'corpus'"),
        ("train.steps=-1", r"'train.steps': .*greater than 0 \(given: -1\)"),
        ("train.steps=many", r"'train.steps': .*valid integer.*\(given: 'many'\)"),
        ("train.micro_batch_size=3", "batch_size 8 is not a multiple of micro_batch_size 3"),
        ("train.warmup_steps=99999", "warmup_steps 99999 must be fewer than steps"),
        ("model.connector.kind=pool", "'model.connector.kind': Input should be 'average_pool'"),
        ("train.steps", "write it as key=value"),
        ("data.mixture.captions={weight: 1}", "'data.mixture.captions"),
    ],
)
def test_mistakes_are_one_sentence(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_recipe("demo", [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid YAML"), ("- a", "a recipe must be a mapping"), ("base: nothing", "recipe 'nothing' is unknown")],
)
def test_files_that_are_no_recipes(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        load_recipe(str(file))
    with pytest.raises(UserError, match="no such recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))
