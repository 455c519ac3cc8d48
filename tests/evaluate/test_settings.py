"""The settings of an evaluation: laid over a recipe, and as a result's protocol has them."""

import pytest
from pydantic import ValidationError

from mm1.errors import UserError
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.settings import EvaluationSettings
from mm1.recipe import EvaluateRecipe, load_recipe

from .test_evaluate_model import Oracle, run, task
from .test_run import saved, task_file  # noqa: F401 - fixtures

PROTOCOL = {
    "format": 4,
    "prompt": "{image} Question: {question} Short answer:",
    "answer": " {answer}",
    "separator": "\n",
    "stop": ["\n"],
    "max_new_tokens": 4,
    "decoding": "greedy",
    "postprocess": [],
    "metric": "accuracy",
    "metric_source": "normalisation of SQuAD's evaluation script; numbers keep sign and point, nothing becomes empty",
    "also": ["exact_match"],
    "items": {"corpus": "squares/test", "images": "image", "answers": "answer", "answer_is": "text", "where": {}},
    "limit": 6,
    "shots": 2,
    "shot_source": "squares/shots",
    "shot_selection": "random, one draw per query, same half, never the query's picture",
    "shot_seeds": [3, 4],
    "text_only_shots": 0,
    "floors": ["majority", "swapped pictures"],
    "seed": 3,
    "together": None,
    "detailed_shots": 1,
    "model": "tiny",
    "model_hash": "0",
}
"""Of results made before there was `EvaluationSettings`, the hash of the data aside."""


def test_what_is_not_set_is_as_the_recipe_has_it():
    recipe = EvaluateRecipe(tasks=["pages"], shots=[0], limit=7, plain=True, detailed_shots=3)
    settings = EvaluationSettings(limit=None, shots=[4], seed=5).over(recipe)
    assert (settings.limit, settings.shots, settings.seed) == (None, [4], 5)
    assert (settings.tasks, settings.plain, settings.detailed_shots) == (["pages"], True, 3)
    assert settings.over(EvaluateRecipe(tasks=["scenes-caption"], shots=[8], limit=1)) == settings


def test_a_run_is_scored_as_its_recipe_says_unless_told_otherwise(squares, saved, task_file):  # noqa: F811
    recipe = load_recipe("demo", [f"evaluate.tasks=[{task_file}]", "evaluate.shots=[2]", "evaluate.limit=4"])
    (saved / "recipe.yaml").write_text(recipe.to_yaml())
    (by_recipe,) = evaluate_run(saved)
    assert (by_recipe["shots"], by_recipe["items"], by_recipe["seed"]) == (2, 4, 0)
    (otherwise,) = evaluate_run(saved, settings=EvaluationSettings(shots=[0], seed=1))
    assert (otherwise["shots"], otherwise["items"], otherwise["seed"]) == (0, 4, 1)


@pytest.mark.parametrize(("key", "value"), [("shots", [0, -1]), ("draws", 0), ("detailed_shots", -1), ("limit", 0)])
def test_impossible_settings_are_refused_at_once(key, value):
    with pytest.raises(ValidationError, match=key):
        EvaluationSettings.model_validate({key: value})


def test_a_negative_number_of_shots_in_a_recipe_is_refused_at_once():
    with pytest.raises(UserError, match=r"demo: key 'evaluate\.shots\.1': .* \(given: -4\)"):
        load_recipe("demo", ["evaluate.shots=[0,-4]"])


def test_the_protocol_is_as_it_has_been(squares, tmp_path):
    """Results made before a change are kept after it only if their protocol is, key by key, what it was."""
    (result,) = run(Oracle("test", 20), tmp_path, task(), shots=[2], limit=6, seed=3, draws=2, detailed_shots=1)
    data_hash = result["protocol"].pop("data_hash")
    assert len(data_hash) == 32
    assert list(result["protocol"].items()) == list(PROTOCOL.items())
