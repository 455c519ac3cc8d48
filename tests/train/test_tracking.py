"""Where the log goes: trackers get every logged step once, also where a run went on, and samples of answers."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import sqlite3
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image as PILImage

from mm1.errors import UserError
from mm1.evaluate.during import scorer_during_training
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at
from tests.train.test_scores import TASK

SAMPLES = "samples/words/0-shot"


def train(recipe_file: Path, run: Path, *settings: str) -> list[dict]:
    """Train the recipe in two goes, the second of which does steps again that the first had logged."""
    recipe = load_recipe(str(recipe_file), settings)
    with breaking_at(7):
        pretrain(recipe, run)
    pretrain(recipe, run)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_has_every_step_once(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    lines = train(recipe_file, run, "train.trackers=[tensorboard]")
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for key in ("loss", "grad_norm/vision", "mfu"):
        found = [(event.step, event.value) for event in events.Scalars(key)]
        assert [step for step, _ in found] == list(range(1, 13))
        assert [value for _, value in found] == pytest.approx([line[key] for line in lines])
    assert set(events.Tags()["scalars"]) == {key for line in lines for key in line} - {"step"}


def test_wandb_has_every_step_once_in_one_run(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    lines = train(recipe_file, run, "train.trackers=[wandb]")
    goes = sorted((run / "wandb").glob("offline-run-*"))
    assert len(goes) == 2
    logged: dict[int, float] = {}
    for go in goes:
        name = ""
        history: list[tuple[int, float]] = []
        deadline = time.monotonic() + 30
        while not history and time.monotonic() < deadline:  # a process of W&B's own writes the file, at its own pace
            name, history = read_offline_run(next(go.glob("*.wandb")))
        assert name == json.loads((run / "wandb" / "mm1.json").read_text())["id"]
        for step, loss in history:
            assert step not in logged
            logged[step] = loss
    # Steps that were done again are not sent again: they came to the same figures.
    assert logged == pytest.approx({line["step"]: line["loss"] for line in lines})


def train_scored(recipe_file: Path, run: Path, tracker: str) -> dict[int, list[dict[str, Any]]]:
    """Train with scores at the steps 6 and 12; return the first predictions of each in the files of results."""
    task = run.parent / "words.yaml"
    task.write_text(yaml.safe_dump(TASK))
    during = f"evaluate.during={{every: 6, tasks: ['{task}'], limit: 6}}"
    recipe = load_recipe(str(recipe_file), [f"train.trackers=[{tracker}]", during])
    pretrain(recipe, run, scorer_during_training(recipe.evaluate))
    files = {step: run / "scores" / f"step-{step:06d}" / "words.0-shot.json" for step in (6, 12)}
    return {step: json.loads(file.read_text())["predictions"][:4] for step, file in files.items()}


def test_tensorboard_shows_pictures_and_answers(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    expected = train_scored(recipe_file, tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    texts = {
        event.step: event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{SAMPLES}/text_summary")
    }
    assert texts.keys() == expected.keys()
    for step, predictions in expected.items():
        rows = [[cell.strip() for cell in row.split("|")[2:-1]] for row in texts[step].splitlines()[2:]]
        assert rows == [[p["prompt"], " ".join(p["prediction"].split()), p["answers"][0].strip()] for p in predictions]
    for number in range(4):
        shown = {event.step: event.encoded_image_string for event in events.Images(f"{SAMPLES}/{number}")}
        assert shown.keys() == expected.keys()
        for step, picture in shown.items():
            kept = PILImage.open(io.BytesIO(base64.b64decode(expected[step][number]["image"])))
            assert np.array_equal(np.asarray(PILImage.open(io.BytesIO(picture))), np.asarray(kept.convert("RGB")))


def test_wandb_gets_a_table_of_answers(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    expected = train_scored(recipe_file, tmp_path / "run", "wandb")
    (media,) = (tmp_path / "run" / "wandb").glob("offline-run-*/files/media")
    tables = [json.loads(file.read_text())["data"] for file in (media / "table").rglob("*.table.json")]
    rows = [[[p["prompt"], p["prediction"], p["answers"][0].strip()] for p in expected[step]] for step in expected]
    assert sorted(tables) == sorted(rows)
    pictures = {(step, p["image"]) for step in expected for p in expected[step]}
    assert len(list((media / "images" / "samples" / "words").glob("*.png"))) == len(pictures)


def test_trackio_has_every_step_once_and_a_table_of_answers(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="trackio is not installed: it wants an older pillow than constraints.txt has")
    expected = train_scored(recipe_file, tmp_path / "run", "trackio")
    (database,) = (tmp_path / "trackio").glob("mm1*.db")
    with sqlite3.connect(database) as connection:
        rows = [
            (step, json.loads(metrics)) for step, metrics in connection.execute("SELECT step, metrics FROM metrics")
        ]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {step: metrics["loss"] for step, metrics in rows} == {line["step"]: line["loss"] for line in lines}
    assert len(rows) == len(lines)
    for step, metrics in rows:
        if step in expected:
            answers = [row["answer"] for row in metrics[SAMPLES]["_value"]]
            assert answers == [p["prediction"] for p in expected[step]]


def read_offline_run(file: Path) -> tuple[str, list[tuple[int, float]]]:
    """Return the id of a run kept by W&B on this machine, and (step, loss) of its history."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")

    name, history = "", []
    for content in leveldb_records(file.read_bytes()):
        record = messages.Record()
        record.ParseFromString(content)
        if record.HasField("run"):
            name = record.run.run_id
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            history.append((record.history.step.num, float(items["loss"])))
    return name, history


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format, which W&B's files have behind a header of 7 bytes."""
    place, record = 7, b""
    while place < len(data):
        if 2**15 - place % 2**15 < 7:  # a block's last bytes, too few for a record
            place += 2**15 - place % 2**15
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def test_wandb_out_of_reach_is_a_sentence(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # of a test before: it keeps its settings in the process
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match="W&B doesn't start .*: run `wandb login`, or set WANDB_MODE=offline"):
        pretrain(load_recipe(str(recipe_file), ["train.trackers=[wandb]"]), tmp_path / "run")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_said_before_anything_is_done(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda found, *a: None if found == name else find_spec(found, *a))
    recipe = load_recipe(str(recipe_file), [f"train.trackers=[{name}]"])
    with pytest.raises(UserError, match=rf"the package {name} is not installed: run pip install 'mm1\[track\]'"):
        pretrain(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trackers_may_change_on_a_run_that_is_there(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    with breaking_at(6):
        pretrain(load_recipe(str(recipe_file)), run)
    pretrain(load_recipe(str(recipe_file), ["train.trackers=[tensorboard]"]), run)
    assert list((run / "tensorboard").iterdir())
