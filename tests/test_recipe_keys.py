"""What `mm1 recipe` shows: the packaged recipes, their keys, and the schema for editors."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError
from mm1.recipe import EncoderRecipe, Recipe, load_recipe, packaged_recipes
from mm1.recipe.any_kind import load_any_recipe, recipe_list, schema_of
from mm1.recipe.editor import editor_schema
from mm1.recipe.keys import matching_keys, nearest_keys, recipe_keys
from mm1.recipe.load import RECIPES


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, prog_name="mm1", env={"COLUMNS": "100"}, catch_exceptions=False)


@pytest.mark.parametrize("schema", [Recipe, EncoderRecipe])
def test_every_key_says_what_it_is_and_takes(schema: type[Recipe] | type[EncoderRecipe]) -> None:
    for key in recipe_keys(schema):
        assert key.description, key.name
        assert "class" not in key.takes, key.name
        assert "typing" not in key.takes, key.name


def test_every_key_that_is_shown_exists() -> None:
    """Defaults are those of the schema: a recipe that gives all of them is the recipe that gives none."""
    sections = ("train.", "tokenizer.", "model.resolution.")
    shown = {key.name: key.default for key in recipe_keys(Recipe) if key.name.startswith(sections)}
    settings = [f"{name}={default}" for name, default in shown.items() if not name.startswith("train.lora")]
    minimal = "data={mixture: {text: {weight: 1, sources: [{corpus: a/b}]}}}"
    given = Recipe.model_validate(
        yaml.safe_load("name: x\ndata: {mixture: {text: {weight: 1, sources: [{corpus: a/b}]}}}")
    )
    assert load_recipe("text-1b", ["name=x", "model={}", "evaluate={}", minimal, *settings]) == given


def test_keys_are_found_by_how_they_begin_or_what_they_contain() -> None:
    assert [key.name for key in matching_keys(Recipe, "train.warm")] == ["train.warmup_steps"]
    (key,) = matching_keys(Recipe, "clip_norm")
    assert (key.name, key.takes, key.default) == ("train.clip_norm", "number > 0 | null", "1")
    with pytest.raises(UserError, match="'wurmup': did you mean train.warmup_steps"):
        matching_keys(Recipe, "wurmup")
    assert nearest_keys(Recipe, "xyzzy") == []


def test_a_key_without_its_section_is_named_with_it() -> None:
    with pytest.raises(UserError, match="unknown key 'steps': did you mean 'train.steps'"):
        load_recipe("demo", ["steps=5"])


def test_recipes_are_listed_with_the_command_that_trains_by_them() -> None:
    commands = {name: command for name, command, _ in recipe_list()}
    assert commands.keys() == set(packaged_recipes())
    assert [commands[name] for name in ("demo", "clip-demo", "sft-demo")] == ["pretrain", "encoder", "sft"]
    assert all(title and not title.endswith(".") and len(title) < 250 for _, _, title in recipe_list())


@pytest.mark.parametrize("name", ["demo", "clip-demo"])
def test_a_recipe_is_shown_as_a_run_would_keep_it(name: str) -> None:
    shown = run("recipe", "show", name, "--set", "train.steps=777").stdout
    assert shown == load_any_recipe(name, ["train.steps=777"]).to_yaml()
    assert "steps: 777" in shown


def test_the_commands_print_tables_and_the_schema() -> None:
    assert "clip-demo" in run("recipe", "list").stdout
    assert "train.steps: 200000    [whole number > 0]\n    Optimizer steps" in run("recipe", "keys", "train").stdout
    assert "objective.kind: clip" in run("recipe", "keys", "objective", "--encoder").stdout
    assert json.loads(run("recipe", "schema").stdout) == editor_schema(Recipe)


@pytest.mark.parametrize("name", packaged_recipes())
def test_the_schema_takes_every_packaged_recipe(name: str) -> None:
    jsonschema.validate(RECIPES.read(name), editor_schema(schema_of(RECIPES.read(name))))


@pytest.mark.parametrize(
    ("file", "valid"),
    [
        ("{base: demo, train: {steps: 5}}", True),
        ("{base: demo, model: {language_model: smollm2}}", True),
        ("{base: demo, data: {mixture: {text: {weight: 1}}}}", True),
        ("{base: demo, train: {stepz: 5}}", False),
        ("{base: demo, train: {steps: many}}", False),
        ("{name: mine}", False),
    ],
)
def test_the_schema_marks_what_is_wrong(file: str, valid: bool) -> None:
    assert jsonschema.Draft202012Validator(editor_schema(Recipe)).is_valid(yaml.safe_load(file)) == valid


@pytest.mark.parametrize(("steps", "warmup"), [(5, 0), (50, 1), (51, 50), (1600, 50)])
def test_a_short_run_has_a_short_warm_up(steps: int, warmup: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_recipe("demo", [f"train.steps={steps}"]).train.warmup_steps == warmup
    said = capsys.readouterr().err
    assert said.count("\n") == (warmup < 50)
    if warmup < 50:
        assert f"train.warmup_steps is {warmup} and not 50, for train.steps is {steps} and not 1,600" in said


def test_a_warm_up_that_is_asked_for_stays_or_is_refused() -> None:
    with pytest.raises(UserError, match="warmup_steps 50 must be fewer than steps 5"):
        load_recipe("demo", ["train.steps=5", "train.warmup_steps=50"])
    assert load_recipe("clip-demo", ["train.steps=3"], schema=EncoderRecipe).train.warmup_steps == 0
    assert load_recipe("sft-demo", ["train.steps=3"]).train.warmup_steps == 0
