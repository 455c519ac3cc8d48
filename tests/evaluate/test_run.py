import json

import pytest

from mm1.errors import UserError
from mm1.evaluate.run import evaluate_run, scores_directory

from .test_runner import BASE


@pytest.fixture
def saved(tmp_path, model, processor):
    folder = tmp_path / "run" / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder.parent


@pytest.fixture
def task_file(tmp_path):
    file = tmp_path / "squares.yaml"
    file.write_text(json.dumps({key: value for key, value in BASE.items() if key != "name"}))
    return str(file)


def test_a_run_directory_is_scored_and_kept(squares, saved, task_file):
    first = evaluate_run(saved, [task_file], shots=[0, 2], device="cpu")
    file = saved / "scores" / "squares.2-shot.json"
    written = file.stat().st_mtime_ns
    again = evaluate_run(saved, [task_file], shots=[0, 2], device="cpu", batch_size=3)
    assert again == json.loads(json.dumps(first))
    assert file.stat().st_mtime_ns == written
    assert first[0]["protocol"]["adapter"] == "mm1"
    assert first[0]["protocol"]["dtype"] == "torch.float32"


def test_another_model_in_its_place_is_scored_anew(squares, saved, task_file, model):
    (before,) = evaluate_run(saved, [task_file], shots=[2], device="cpu")
    head = model.lm_head.weight.data
    head.neg_()
    try:
        model.save_pretrained(saved / "model")
        (after,) = evaluate_run(saved, [task_file], shots=[2], device="cpu")
    finally:
        head.neg_()
    assert before["protocol"]["model_hash"] != after["protocol"]["model_hash"]
    assert [p["prediction"] for p in before["predictions"]] != [p["prediction"] for p in after["predictions"]]


def test_unknown_tasks_and_models_are_refused_before_anything_is_written(squares, saved, tmp_path):
    with pytest.raises(UserError, match="did you mean easy-vqa"):
        evaluate_run(saved, ["easyvqa"])
    with pytest.raises(UserError, match="no model there"):
        evaluate_run(tmp_path / "nothing", ["easy-vqa"])
    assert not (saved / "scores").exists()
    assert not (tmp_path / "nothing").exists()


def test_where_results_go():
    assert str(scores_directory("runs/demo")) == "runs/demo/scores"
    assert str(scores_directory("hub:owner/name")) == "scores/owner--name"
