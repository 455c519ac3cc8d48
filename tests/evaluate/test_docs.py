"""What the how-to shows is what works."""

import json
import re
from pathlib import Path

import yaml

from mm1.evaluate.metrics import METRICS
from mm1.evaluate.tasks.task import ShotSource, Task, load_task, packaged_tasks

from .conftest import square
from .test_evaluate_model import BASE, Oracle, run

DOCS = Path(__file__).parents[2] / "docs"


def blocks(language):
    text = (DOCS / "how-to" / "add-a-task.md").read_text()
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [content for name, content in found if name == language]


def test_the_shortest_task_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "signs" / "pictures").mkdir(parents=True)
    example = json.loads(next(block for block in blocks("") if block.startswith("{")))
    for name, count in (("test", 2), ("train", 4)):
        lines = []
        for n in range(count):
            path = f"pictures/{name}-{n}.png"
            (tmp_path / "signs" / path).write_bytes(square("red", dot=n + 10 * count).data)
            lines.append(json.dumps({**example, "image": path}))
        (tmp_path / "signs" / f"{name}.jsonl").write_text("\n".join(lines))
    task = Task.model_validate({"name": "signs", **yaml.safe_load(blocks("yaml")[0])})
    (result,) = run(Oracle("test", 1), tmp_path / "scores", task, shots=(2,))
    assert result["items"] == 2
    assert result["predictions"][0]["answers"] == ["stop", "stop sign"]


def test_every_form_of_shots_is_valid():
    forms = [yaml.safe_load(line)["shots"] for line in blocks("yaml")[2].strip().splitlines()]
    assert len([ShotSource.model_validate(form) for form in forms]) == 6


def test_a_task_on_the_base_of_another(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(blocks("yaml")[1])
    assert load_task(str(file)).shots.selection == "nearest"


def test_a_model_in_memory_is_scored(squares, tmp_path, monkeypatch, model, processor):
    monkeypatch.chdir(tmp_path)
    Path("my-signs.yaml").write_text(json.dumps({key: value for key, value in BASE.items() if key != "name"}))
    (code,) = [block for block in blocks("python") if "MM1Generator" in block]
    exec(code, {"model": model, "processor": processor, "Path": Path})
    model.eval()  # it is the other tests' as well
    assert sorted(file.name for file in Path("runs/demo/scores/step-1000").glob("*.json")) == [
        "my-signs.0-shot.json",
        "my-signs.4-shot.json",
    ]


def test_the_reference_names_every_metric():
    text = (DOCS / "reference" / "metrics.md").read_text()
    named = set(re.findall(r"`(\w+)`", text.split("## accuracy")[0])) | {"bleu_2", "bleu_3"}
    assert set(METRICS) <= named


def test_the_page_on_scores_says_where_every_tasks_shots_come_from():
    text = " ".join((DOCS / "explanation" / "scores.md").read_text().split())
    listed = [text.split(f"- from {start}")[1] for start in ("training:", "a split made for it:", "the scored split")]
    bullets = [set(re.findall(r"`([\w-]+)`", bullet.split(".")[0].split("; ")[0])) for bullet in listed]
    bullets[1] &= set(packaged_tasks())
    for name in packaged_tasks():
        pool = load_task(name).pool
        training = pool.split == "train" or str(pool.corpus).endswith("/train")
        place = 2 if pool == load_task(name).data else 0 if training else 1
        assert [number for number, bullet in enumerate(bullets) if name in bullet] == [place], name
