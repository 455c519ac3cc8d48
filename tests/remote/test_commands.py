"""What a user does with addresses, from end to end: build, train, push, use."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mm1.cli import app
from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.model.resolve import model_hash
from mm1.recipe import load_recipe
from mm1.remote.errors import RemoteError
from mm1.remote.objects import State
from mm1.train.pretrain import pretrain
from tests.conftest import png, tiny_recipe
from tests.data.sample_sources import webdataset_members, write_tar
from tests.publish.conftest import models, runs  # noqa: F401 - fixtures
from tests.remote.conftest import forget
from tests.remote.server import Store, failing


def mm1(line: str) -> str:
    done = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_training_goes_on_without_a_picture_that_vanished(s3: Store, tmp_path: Path) -> None:
    for number in range(16):
        s3.put(f"s3://data/f/{number}.png", png("red", 20 + number))
        s3.put(f"s3://data/f/{number}.txt", b"a red square")
    mm1(f"data build --from image-folder s3://data/f --to {tmp_path}/c --in-place --workers 1")
    content = tiny_recipe()
    for kind in ("interleaved", "text"):
        del content["data"]["mixture"][kind]
    content["data"]["mixture"]["caption"] = {"weight": 1, "sources": [{"corpus": str(tmp_path / "c" / "train")}]}
    content["train"]["steps"] = 4
    content["data"]["workers"] = 2
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    forget()
    s3.rule = failing("/3.png", status=404)  # it is there when the training begins
    pretrain(load_recipe(str(tmp_path / "tiny.yaml")), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["bad_images"] > 0
    assert max(line["step"] for line in lines) == 4


@pytest.mark.usefixtures("runs")
def test_a_model_goes_to_a_store_and_is_used_from_there(s3: Store, runs: Path) -> None:  # noqa: F811
    mm1("push chat --to s3://data/models/chat")
    (runs / "red.png").write_bytes(png("red"))
    local, remote = (mm1(f"caption {model} red.png") for model in ("chat", "s3://data/models/chat"))
    assert remote == local
    mm1("pull s3://data/models/chat --to again")
    assert model_hash(runs / "again") == model_hash(runs / "chat" / "model")


def test_a_run_in_a_store_is_scored_as_on_a_disk(
    s3: Store,
    models: Path,  # noqa: F811
    corpora: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MM1_DATA", str(corpora))
    task = {"description": "Squares.", "prompt": "{image}", "metric": "accuracy", "max_new_tokens": 4}
    (tmp_path / "squares.yaml").write_text(yaml.safe_dump({**task, "data": {"corpus": "captions/train"}}))
    shutil.copytree(models / "turns", tmp_path / "runs" / "demo" / "model")
    s3.upload(tmp_path / "runs", "s3://data/runs")
    for run in ("runs/demo", "s3://data/runs/demo"):
        mm1(f"evaluate {run} --tasks squares.yaml --shots 0,1 --limit 3")
    for name in ("squares.0-shot.json", "squares.1-shot.json"):
        local, remote = (
            json.loads((tmp_path / folder / name).read_text())
            for folder in ("runs/demo/scores", "scores/data--runs--demo")
        )
        assert remote["predictions"] == local["predictions"]
        assert remote["protocol"]["model_hash"] == local["protocol"]["model_hash"]


def test_tars_are_read_over_http(s3: Store, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", webdataset_members(3))
    s3.put("s3://data/raw/0.tar", tar.read_bytes())
    address = f"{s3.url}/data/raw/0.tar"
    for name, in_place in (("copied", False), ("referring", True)):
        build_from("webdataset", [address], tmp_path / name, in_place=in_place, workers=1)
    build_from("webdataset", [str(tar)], tmp_path / "local", workers=1)
    copied, referring, local = (Split(tmp_path / name / "train") for name in ("copied", "referring", "local"))
    forget()
    assert list(copied) == list(referring) == list(local)
    referring.check_sources()
    with pytest.raises(RemoteError, match=r"none\.tar: nothing is there"):
        State.of(f"{s3.url}/data/raw/none.tar")
