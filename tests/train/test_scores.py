"""Scores during training: right, and without a trace in the training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mm1.errors import UserError
from mm1.evaluate.during import scorer_during_training
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.settings import EvaluationSettings
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from mm1.train.scores import preserve_random_state
from mm1.train.tracking import Samples
from tests.conftest import breaking_at
from tests.train.test_ranks import train_on_two

TASK = {
    "description": "A picture put into words.",
    "data": {"corpus": "captions/train"},
    "prompt": "{image}",
    "max_new_tokens": 6,
    "metric": "cider",
}


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    task = tmp_path / "words.yaml"
    task.write_text(yaml.safe_dump(TASK))
    return [f"evaluate.during={{every: 4, tasks: ['{task}'], limit: 12}}", "train.learning_rate=0.01"]


def train(recipe_file: Path, run: Path, settings: list[str]) -> list[dict]:
    recipe = load_recipe(str(recipe_file), settings)
    pretrain(recipe, run, scorer_during_training(recipe.evaluate))
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def scores(lines: list[dict]) -> dict[int, float]:
    return {line["step"]: line["score/words/0-shot"] for line in lines if "score/words/0-shot" in line}


def test_the_training_is_the_same_with_scores_as_without(
    recipe_file: Path, data: Path, tmp_path: Path, settings: list[str]
) -> None:
    unlogged = [*settings, "train.log_every=5", "train.activation_checkpointing=true"]
    scored, plain = tmp_path / "scored", tmp_path / "plain"
    lines = train(recipe_file, scored, unlogged)
    train(recipe_file, plain, unlogged[1:])
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (scored, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [line["step"] for line in lines] == [4, 5, 8, 10, 12]
    found = scores(lines)
    assert sorted(found) == [4, 8, 12]
    for step, score in found.items():
        file = scored / "scores" / f"step-{step:06d}" / "words.0-shot.json"
        result = json.loads(file.read_text())
        assert result["score"] == score
        assert result["items"] == 12
    # The last weights are those that `mm1 evaluate` loads from the disk: same predictions.
    (after,) = evaluate_run(scored, settings=EvaluationSettings(tasks=[unlogged[0].split("'")[1]], shots=[0], limit=12))
    last = json.loads((scored / "scores" / "step-000012" / "words.0-shot.json").read_text())
    assert [p["prediction"] for p in after["predictions"]] == [p["prediction"] for p in last["predictions"]]
    assert any(p["prediction"] for p in last["predictions"])


def test_a_run_that_was_stopped_has_the_same_scores(
    recipe_file: Path, data: Path, tmp_path: Path, settings: list[str]
) -> None:
    whole = train(recipe_file, tmp_path / "whole", settings)
    with breaking_at(9):
        train(recipe_file, tmp_path / "broken", settings)
    broken = train(recipe_file, tmp_path / "broken", settings)
    assert scores(broken) == scores(whole)
    assert [line["loss"] for line in broken] == [line["loss"] for line in whole]


def test_two_ranks_score_their_gathered_weights(
    recipe_file: Path, data: Path, tmp_path: Path, settings: list[str]
) -> None:
    run = tmp_path / "run"
    result = train_on_two(recipe_file, run, data, *settings)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (after,) = evaluate_run(run, settings=EvaluationSettings(tasks=[settings[0].split("'")[1]], shots=[0], limit=12))
    assert sorted(scores(lines)) == [4, 8, 12]
    assert scores(lines)[12] == after["score"]


def test_a_missing_task_is_named_before_training(recipe_file: Path, data: Path) -> None:
    recipe = load_recipe(str(recipe_file), ["evaluate.during={every: 4, tasks: [easy-vqq]}"])
    with pytest.raises(UserError, match="task 'easy-vqq' is unknown"):
        scorer_during_training(recipe.evaluate)
    recipe = load_recipe(str(recipe_file), ["evaluate.during={every: 4, tasks: [easy-vqa]}"])
    with pytest.raises(UserError, match="easy-vqa"):
        scorer_during_training(recipe.evaluate)  # its corpus isn't there
    with pytest.raises(UserError, match="neither during.tasks nor tasks names a task"):
        load_recipe(str(recipe_file), ["evaluate.during={every: 4}"])


def test_what_a_scorer_draws_is_put_back() -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    with preserve_random_state():
        random.random(), np.random.rand(), torch.rand(1)
        torch.manual_seed(5)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_scores_that_memory_is_too_small_for(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    def score(*_: object) -> tuple[dict[str, float], Samples]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    recipe = load_recipe(str(recipe_file), ["evaluate.during={every: 4, tasks: [pages]}"])
    with pytest.raises(
        UserError, match="evaluate.during: out of memory on cpu while scoring at step 4: lower evaluate.b"
    ):
        pretrain(recipe, tmp_path / "run", score)
