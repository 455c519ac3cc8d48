"""The page's commands repeat the run: in an empty folder, with the recipes that the page holds."""

from __future__ import annotations

import json
import re
import shlex
from copy import deepcopy
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mm1.cli import app
from mm1.evaluate.compare import differing_protocol
from mm1.files import write_json
from mm1.report import write_report
from tests.conftest import tiny_recipe
from tests.encoder.conftest import TINY

TASK = {
    "description": "Captions of coloured squares.",
    "data": {"corpus": "captions/train"},
    "prompt": "{image}",
    "metric": "accuracy",
    "max_new_tokens": 4,
}


def mm1(command: str) -> None:
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code == 0, f"{command}: {done.exception}"


def test_a_run_with_its_encoder_is_repeated_in_an_empty_folder(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, empty = tmp_path / "home", tmp_path / "empty"
    home.mkdir()
    empty.mkdir()
    monkeypatch.chdir(home)
    eye: dict[str, Any] = deepcopy(TINY)
    eye["train"]["steps"] = 4
    (home / "eye.yaml").write_text(yaml.safe_dump(eye))
    recipe = tiny_recipe()
    recipe["model"]["vision"] = {"from": "runs/eye"}
    recipe["train"]["steps"] = 4
    (home / "model.yaml").write_text(yaml.safe_dump(recipe))
    task = tmp_path / "squares.yaml"
    task.write_text(yaml.safe_dump(TASK))
    mm1("mm1 encoder eye.yaml --to runs/eye")
    mm1("mm1 pretrain model.yaml --to runs/model")
    mm1(f"mm1 evaluate runs/model --tasks {task} --shots 0,1 --limit 5 --seed 3")
    page = write_report(home / "runs" / "model").read_text()
    monkeypatch.chdir(empty)
    for name, content in re.findall(r'<summary>([\w.-]+): .*?<pre class="recipe">(.*?)</pre>', page, re.DOTALL):
        (empty / name).write_text(unescape(content))
    assert {file.name for file in empty.iterdir()} == {"eye.yaml", "model.yaml"}
    lines = re.findall(r"<pre>(git|mm1)(.*?)</pre>", page, re.DOTALL)[0]
    commands = [unescape(re.sub("<.*?>", "", line)).partition("#")[0].strip() for line in "".join(lines).splitlines()]
    assert [c.split()[1] for c in commands if c.startswith("mm1")][-4:] == ["encoder", "pretrain", "evaluate", "report"]
    for command in commands:
        if command.startswith("mm1") and "data build" not in command:  # the data are there
            mm1(command.replace("--tasks squares", f"--tasks {task}"))
    file = Path("scores") / "squares.1-shot.json"
    first, again = (
        json.loads((run / file).read_text()) for run in (home / "runs" / "model", empty / "runs" / "model-again")
    )
    assert differing_protocol(first["protocol"], again["protocol"]) is None
    assert [p["id"] for p in again["predictions"]] == [p["id"] for p in first["predictions"]]
    assert (again["score"], again["seed"]) == (first["score"], 3)


def test_a_start_that_is_gone_is_named(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "model"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump({"name": "x", "model": {"vision": {"from": "runs/eye"}}}))
    write_json(run / "environment.json", {"commit": "abc+changed"})
    page = write_report(run).read_text()
    assert "it starts from this run, which is not here any more" in page
    assert "without its uncommitted changes" in page
