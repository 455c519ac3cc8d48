import json

import pytest

from mm1.cli import main
from mm1.errors import UserError
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.settings import EvaluationSettings
from mm1.evaluate.tasks.task import load_task
from mm1.places import parse_model_name

from .test_evaluate_model import BASE


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
    first = evaluate_run(saved, settings=EvaluationSettings(tasks=[task_file], shots=[0, 2], device="cpu"))
    file = saved / "scores" / "squares.2-shot.json"
    written = file.stat().st_mtime_ns
    again = evaluate_run(
        saved, settings=EvaluationSettings(tasks=[task_file], shots=[0, 2], device="cpu", batch_size=3)
    )
    assert again == json.loads(json.dumps(first))
    assert file.stat().st_mtime_ns == written
    assert first[0]["protocol"]["adapter"] == "mm1"
    assert first[0]["protocol"]["dtype"] == "torch.float32"


def test_another_model_in_its_place_is_scored_anew(squares, saved, task_file, model):
    (before,) = evaluate_run(saved, settings=EvaluationSettings(tasks=[task_file], shots=[2], device="cpu"))
    head = model.lm_head.weight.data
    head.neg_()
    try:
        model.save_pretrained(saved / "model")
        (after,) = evaluate_run(saved, settings=EvaluationSettings(tasks=[task_file], shots=[2], device="cpu"))
    finally:
        head.neg_()
    assert before["protocol"]["model_hash"] != after["protocol"]["model_hash"]
    assert [p["prediction"] for p in before["predictions"]] != [p["prediction"] for p in after["predictions"]]


def test_unknown_tasks_and_models_are_refused_before_anything_is_written(squares, saved, tmp_path):
    with pytest.raises(UserError, match="did you mean easy-vqa"):
        evaluate_run(saved, settings=EvaluationSettings(tasks=["easyvqa"]))
    with pytest.raises(UserError, match="is no model: no such folder"):
        evaluate_run(tmp_path / "nothing", settings=EvaluationSettings(tasks=["easy-vqa"]))
    assert not (saved / "scores").exists()
    assert not (tmp_path / "nothing").exists()


def test_where_results_go():
    assert str(parse_model_name("runs/demo").scores()) == "runs/demo/scores"
    assert str(parse_model_name("runs/demo@750").scores()) == "runs/demo/scores/step-000750"
    assert str(parse_model_name("hub:owner/name").scores()) == "scores/owner--name"
    assert str(parse_model_name("owner/name@v1").scores()) == "scores/owner--name@v1"


def test_everything_can_be_said_on_the_command_line(squares, saved, task_file, tmp_path, monkeypatch, capsys):
    words = ["evaluate", saved, "--tasks", task_file, "--shots", "0,2", "--limit", 6, "--seed", 3, "--draws", 2]
    words += ["--to", tmp_path / "there", "--batch-size", 2, "--device", "cpu", "--dtype", "bfloat16"]
    monkeypatch.setattr("sys.argv", ["mm1", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert "squares" in capsys.readouterr().out
    assert not (saved / "scores").exists()
    result = json.loads((tmp_path / "there" / "squares.2-shot.json").read_text())
    assert [draw["seed"] for draw in result["draws"]] == [3, 4]
    assert all(len(prediction["other_draws"]) == 1 for prediction in result["predictions"])
    assert (result["items"], result["protocol"]["dtype"]) == (6, "torch.bfloat16")
    none = json.loads((tmp_path / "there" / "squares.0-shot.json").read_text())
    assert len(none["draws"]) == 1  # nothing to draw


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"dtype": "int4"}, "dtype 'int4' is unknown: name one of auto"),
        ({"device": "abacus"}, "device: 'abacus' can't be used here"),
    ],
)
def test_wrong_devices_and_dtypes_are_named(squares, saved, task_file, option, words):
    with pytest.raises(UserError, match=words):
        evaluate_run(saved, settings=EvaluationSettings(tasks=[task_file], **option))


def test_a_task_on_the_base_of_another(tmp_path):
    file = tmp_path / "vqav2-nearest.yaml"
    file.write_text("base: vqav2\nshots: {selection: nearest}\n")
    task, base = load_task(str(file)), load_task("vqav2")
    assert (task.name, task.shots.selection, task.prompt) == ("vqav2-nearest", "nearest", base.prompt)
    file.write_text("base: vqav3\n")
    with pytest.raises(UserError, match="task 'vqav3' is unknown: did you mean vqav2"):
        load_task(str(file))


def test_two_tasks_of_one_name(squares, saved, tmp_path):
    files = []
    for folder, stop in (("one", "\n"), ("two", ".")):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "mine.yaml")
        files[-1].write_text(
            json.dumps({**{key: value for key, value in BASE.items() if key != "name"}, "stop": [stop]})
        )
    settings = EvaluationSettings(tasks=[str(file) for file in files], shots=[0], device="cpu")
    with pytest.raises(UserError, match="two tasks are called 'mine'"):
        evaluate_run(saved, settings=settings)
    assert not (saved / "scores").exists()
