"""What the how-to shows is what works."""

import json
import re
from pathlib import Path

import yaml

from mm1.evaluate.metrics import METRICS
from mm1.evaluate.task import ShotSource, Task

from .conftest import square
from .test_runner import Oracle, run

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
    forms = [yaml.safe_load(line)["shots"] for line in blocks("yaml")[1].strip().splitlines()]
    assert len([ShotSource.model_validate(form) for form in forms]) == 5


def test_the_reference_names_every_metric():
    text = (DOCS / "reference" / "metrics.md").read_text()
    named = set(re.findall(r"`(\w+)`", text.split("## accuracy")[0])) | {"bleu_2", "bleu_3"}
    assert set(METRICS) <= named
