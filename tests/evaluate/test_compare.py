import json

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mm1.cli import app
from mm1.cli.evaluate import compare
from mm1.errors import UserError
from mm1.evaluate.beside_paper import paper_table
from mm1.evaluate.compare import compare_runs, comparison_table
from mm1.evaluate.compare_recipes import compare_recipes


def write_result(folder, right, *, task="t", shots=0, metric="accuracy", **protocol):
    folder.mkdir(parents=True, exist_ok=True)
    predictions = [
        {"id": str(n), "prediction": "yes" if ok else "no", "answers": ["yes"]} for n, ok in enumerate(right)
    ]
    content = {
        "task": task,
        "shots": shots,
        "metric": metric,
        "protocol": {"prompt": "p", "data_hash": "d", "model_hash": str(folder), **protocol},
        "predictions": predictions,
    }
    (folder / f"{task}.{shots}-shot.json").write_text(json.dumps(content))


def random_answers(rate, seed, count=400):
    return np.random.default_rng(seed).random(count) < rate


def test_a_large_difference_is_real_and_none_is_not(tmp_path):
    weak = random_answers(0.5, 0)
    strong = weak | random_answers(0.4, 1)
    for task, first, second in (("better", weak, strong), ("same", weak, weak)):
        write_result(tmp_path / "a" / "scores", first, task=task)
        write_result(tmp_path / "b" / "scores", second, task=task)
    better, same = compare_runs(tmp_path / "a", tmp_path / "b")
    assert better.real
    assert better.interval[0] > 0
    assert better.second - better.first == pytest.approx(strong.mean() - weak.mean())
    assert not same.real
    assert same.p_value == 1.0
    assert same.interval == (0.0, 0.0)


def test_p_value_is_the_sign_tests(tmp_path):
    # 10 items differ, 8 of them for the second: of 2^10 ways to give signs, those with |sum| >= 6 have
    # (1 + 10 + 45) * 2 / 1024 = 0.109.
    write_result(tmp_path / "a", [False] * 8 + [True] * 2 + [True] * 30)
    write_result(tmp_path / "b", [True] * 8 + [False] * 2 + [True] * 30)
    (row,) = compare_runs(tmp_path / "a", tmp_path / "b", resamples=20_000)
    assert row.p_value == pytest.approx(0.109, abs=0.01)


def test_nothing_is_real_about_as_often_as_promised(tmp_path):
    called = 0
    for trial in range(60):
        for name in ("a", "b"):
            answers = random_answers(0.5, 1000 * (name == "b") + trial, 200)
            write_result(tmp_path / name, answers)
        (row,) = compare_runs(tmp_path / "a", tmp_path / "b", resamples=400)
        called += row.real
    assert called <= 9  # 3 are expected


def test_holm_is_stricter_with_more_rows(tmp_path):
    first, second = random_answers(0.5, 3, 100), random_answers(0.5, 3, 100)
    second[np.flatnonzero(~second)[:6]] = True  # six of six differences one way: p about 0.03
    for n in range(5):
        write_result(tmp_path / "a", first, shots=n)
        write_result(tmp_path / "b", second if n == 0 else first, shots=n)
    (alone,) = compare_runs(*_only(tmp_path, 0))
    many = compare_runs(tmp_path / "a", tmp_path / "b")
    assert alone.real
    assert alone.p_value == many[0].p_value < 0.05
    assert not any(row.real for row in many)


def _only(folder, shots):
    for name in ("a", "b"):
        target = folder / f"{name}-only"
        target.mkdir()
        file = f"t.{shots}-shot.json"
        (target / file).write_text((folder / name / file).read_text())
    return folder / "a-only", folder / "b-only"


def test_different_protocols_are_refused(tmp_path):
    write_result(tmp_path / "a", [True, False])
    write_result(tmp_path / "b", [True, False], prompt="another")
    with pytest.raises(UserError, match=r"t at 0 shots: .* differently \(prompt: 'p' and 'another'\)"):
        compare_runs(tmp_path / "a", tmp_path / "b")


def test_nothing_in_common_and_nothing_there(tmp_path):
    write_result(tmp_path / "a", [True], shots=0)
    write_result(tmp_path / "b", [True], shots=4)
    with pytest.raises(UserError, match="no result for the same task and number of shots"):
        compare_runs(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="there are no results"):
        compare_runs(tmp_path / "a", tmp_path / "c")


def test_table(tmp_path):
    write_result(tmp_path / "a", [True] * 5 + [False] * 95)
    write_result(tmp_path / "b", [True] * 95 + [False] * 5)
    console = Console(width=140, record=True, quiet=False)
    with console.capture() as captured:
        console.print(comparison_table(compare_runs(tmp_path / "a", tmp_path / "b"), "a", "b"))
    assert "+90.0" in captured.get()
    assert "yes" in captured.get()


def test_results_in_folders_of_their_own_are_named(tmp_path):
    write_result(tmp_path / "a" / "scores" / "one", [True])
    with pytest.raises(UserError, match="there are no results: name one of .*a/scores/one$"):
        compare_runs(tmp_path / "a", tmp_path / "a")


def mm1(*words):
    """Run a command in this process; return what it printed, with single spaces."""
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.exception
    return " ".join(result.output.split())


def write_seeds(folder, spread, seeds, effect=0.0, generator=None, items=300):
    """Write runs of one recipe: each seed's rate of right answers differs by `spread` (standard deviation)."""
    runs = []
    for seed in range(seeds):
        rate = np.clip(0.5 + effect + spread * generator.standard_normal(), 0.05, 0.95)
        run = folder / f"seed-{seed}"
        write_result(run, generator.random(items) < rate, model_hash=str(run))
        runs.append(run)
    return runs


def test_runs_of_one_recipe_differ_as_models_and_not_as_recipes(tmp_path):
    generator = np.random.default_rng(4)
    models, recipes = 0, 0
    for trial in range(20):
        first, second = (
            write_seeds(tmp_path / f"{trial}-{side}", 0.12, 3, generator=generator, items=200) for side in "ab"
        )
        (of_models,) = compare_runs(first[0], second[0], resamples=200)
        (of_recipes,) = compare_recipes(first, second)
        models += of_models.real
        recipes += of_recipes.real
    assert models / 20 > 0.4  # a real difference between two models says nothing of their recipes
    assert recipes / 20 <= 0.1


def test_recipes_that_differ_by_more_than_their_seeds_are_told_apart(tmp_path):
    generator = np.random.default_rng(5)
    first, second = (
        write_seeds(tmp_path / name, 0.02, 3, effect, generator) for name, effect in (("a", 0.0), ("b", 0.3))
    )
    (row,) = compare_recipes(first, second)
    assert row.real
    assert row.runs == (3, 3)
    assert row.interval[0] < 0.3 < row.interval[1]
    # Which run goes with which doesn't matter.
    (again,) = compare_recipes(first[::-1], second)
    assert (again.interval, again.p_value) == (pytest.approx(row.interval), pytest.approx(row.p_value))
    with pytest.raises(UserError, match="one run says nothing of the spread over seeds"):
        compare_recipes(first[:1], second)
    with pytest.raises(UserError, match=r"seed-0 and .*seed-0 are the same model"):
        compare_recipes([first[0], first[0]], second)


def test_the_command_says_what_it_compares(tmp_path, monkeypatch):
    generator = np.random.default_rng(6)
    monkeypatch.setenv("COLUMNS", "160")
    first, second = (write_seeds(tmp_path / name, 0.02, 2, generator=generator) for name in "ab")
    assert "whether these two models differ" in mm1("compare", str(first[0]), str(second[0]))
    assert "whether the recipes differ" in mm1("compare", *(",".join(map(str, side)) for side in (first, second)))


def test_the_papers_scores_stand_beside_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    right = [True] * 60 + [False] * 40
    items = {"items": {"split": "val2014"}, "limit": 100, "shot_source": "OK-VQA/val2014"}
    write_result(tmp_path / "a", right, task="ok-vqa", shots=8, **items)
    write_result(tmp_path / "a", right, task="easy-vqa", shots=8)
    for file in (tmp_path / "a").glob("*.json"):
        content = json.loads(file.read_text())
        content["protocol"]["shots"] = 8
        file.write_text(json.dumps({**content, "score": 0.6}))
    page = mm1("compare", str(tmp_path / "a"), "--paper", "mm1-3b")
    assert "48.4" in page
    assert "stated" in page
    assert "items: all, here 100; shots: from training" in page
    assert "The paper has no scores of mm1-3b for easy-vqa." in page
    with pytest.raises(UserError, match=r"no scores of 'mm1-4b': name one of mm1-3b, mm1-7b"):
        paper_table(tmp_path / "a", "mm1-4b")
    with pytest.raises(UserError, match=r"one side is missing"):
        compare(str(tmp_path / "a"))
