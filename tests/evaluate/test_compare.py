import json

import numpy as np
import pytest
from rich.console import Console

from mm1.errors import UserError
from mm1.evaluate.compare import compare_runs, comparison_table


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
