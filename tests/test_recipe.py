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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: {steps: 100}\nbase: demo\ntrain: {batch_size: 8}\n", "key 'train' is there twice, on lines 1 and 3"),
        ("base: demo\ntrain: {steps: 100, steps: 200}\n", "key 'steps' is there twice, on line 2"),
        ("base: mine.yaml\n", "this recipe extends itself by its key 'base'"),
        ("base: other/two.yaml\n", "this recipe extends itself by its key 'base'"),
        ("a: " + "[" * 20_000, "it is nested too deeply"),
    ],
)
def test_a_file_that_says_two_things(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "two.yaml").write_text("base: ../mine.yaml\n")
    with pytest.raises(UserError, match=message):
        load_recipe(str(file))


def test_what_a_merge_brings_may_be_changed_and_a_base_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("base: demo\ntrain: {<<: {steps: 100, batch_size: 4}, steps: 200}\n")
    (tmp_path / "child.yaml").write_text("base: parent.yaml\nname: child\n")
    recipe = load_recipe(str(tmp_path / "child.yaml"))
    assert (recipe.name, recipe.train.steps, recipe.train.batch_size) == ("child", 200, 4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=yes", "key 'train': steps is a number .given: True"),
        ("train.clip_norm=on", "key 'train': clip_norm is a number"),
        ("train.learning_rate=.inf", "key 'train.learning_rate': Input should be a finite number"),
        ("train.betas=[0.9, 1]", "key 'train.betas.1': Input should be less than 1"),
        ("seed=-1", "key 'seed': Input should be greater than or equal to 0"),
        ("train={steps: 1, steps: 2}", "the value is not valid YAML"),
    ],
)
def test_numbers_that_can_not_be(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("demo", [override])
    assert load_recipe("demo", ["train.compile=yes"]).train.compile is True
