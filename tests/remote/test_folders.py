"""Models, runs and corpora by address: copied whole into the cache, and used from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from mm1.cli import app
from mm1.data.corpus import open_split
from mm1.errors import UserError
from mm1.model.resolve import copy_of_run, model_hash, resolve_model
from mm1.places import parse_model_name
from mm1.remote import blocks, folders
from mm1.remote.folders import local_copy, upload
from mm1.study.plan import weights_digest
from tests.remote.conftest import forget
from tests.remote.server import Store


def test_a_corpus_is_copied_once_and_read(s3: Store, corpora: Path) -> None:
    s3.upload(corpora / "captions", "s3://data/corpora/captions")
    split = open_split("s3://data/corpora/captions/train")
    local = open_split(str(corpora / "captions" / "train"))
    assert split.name == "captions/train"
    assert split.content_hash == local.content_hash
    assert list(split) == list(local)
    s3.requests.clear()
    again = open_split("s3://data/corpora/captions/train")
    assert again.directory == split.directory
    assert s3.gets() == []
    shown = CliRunner().invoke(app, ["data", "show", "s3://data/corpora/captions/train", "--limit", "1"])
    assert "caption-0" in shown.output, shown.output


def test_a_corpus_that_changes_is_copied_again(s3: Store) -> None:
    s3.put("s3://data/c/corpus.json", b"{}")
    first = local_copy("s3://data/c")
    s3.put("s3://data/c/corpus.json", b"[]")
    second = local_copy("s3://data/c")
    assert (first / "corpus.json").read_bytes() == b"{}"
    assert (second / "corpus.json").read_bytes() == b"[]"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("s3://data/corpora/none/train", "s3://data/corpora/none: nothing is there"),
        ("s3://nowhere/captions/train", "there is no bucket 'nowhere'"),
    ],
)
def test_a_missing_corpus_is_one_sentence(s3: Store, reference: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_split(reference)


def test_of_a_run_the_model_is_copied_and_no_checkpoint(s3: Store, tmp_path: Path) -> None:
    for name in (
        "recipe.yaml",
        "model/config.json",
        "model/model.safetensors",
        "checkpoints/step-000001/a.safetensors",
    ):
        s3.put(f"s3://data/runs/demo/{name}", name.encode())
    folder = resolve_model("s3://data/runs/demo")
    assert folder.name == "model"
    assert (folder / "model.safetensors").read_text() == "model/model.safetensors"
    run = copy_of_run(parse_model_name("s3://data/runs/demo"))
    assert sorted(path.name for path in run.iterdir()) == ["model", "recipe.yaml"]
    assert parse_model_name("s3://data/runs/demo").scores() == Path("scores/data--runs--demo")
    with pytest.raises(UserError, match=r"model\.from: s3://data/runs/other: nothing is there"):
        resolve_model("s3://data/runs/other", "model.from")


def test_a_run_of_a_study_is_another_where_the_weights_at_an_address_changed(s3: Store) -> None:
    address, digests = "s3://data/runs/start", []
    s3.put(f"{address}/model/config.json", b"{}")
    s3.put(f"{address}/checkpoints/step-000001/a.safetensors", b"no part of it")
    for content in (b"one", b"two", b"one"):
        s3.put(f"{address}/model/model.safetensors", content)
        weights_digest.cache_clear()
        digests.append(weights_digest(address))
    assert digests[0] == digests[2] != digests[1]
    assert s3.gets() == []
    with pytest.raises(UserError, match="s3://data/runs/other: nothing is there"):
        weights_digest("s3://data/runs/other")


def test_the_least_recently_used_copy_makes_room(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "cache_size", lambda: 2500)
    for name in "abc":
        s3.put(f"s3://data/{name}/file", name.encode() * 1000)
    copies = {name: local_copy(f"s3://data/{name}") for name in "ab"}
    local_copy("s3://data/a")
    assert local_copy("s3://data/c").is_dir()
    assert copies["a"].is_dir()
    assert not copies["b"].exists()
    assert blocks.copied_bytes() == 2000
    s3.put("s3://data/large/file", bytes(3000))
    with pytest.raises(UserError, match=r"s3://data/large: it takes 0\.0 GB, and the cache in .*: set MM1_CACHE_SIZE"):
        local_copy("s3://data/large")


def test_copies_take_the_room_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_CACHE", str(tmp_path))
    cache = blocks.Blocks(tmp_path / "blocks", 256 * 10_000)
    for number in range(8):
        cache.put(f"{0:02x}{number:030x}", bytes(1000))
    (tmp_path / "folders" / f"{0:032x}-{256 * 8_000}").mkdir(parents=True)
    cache.make_room()
    assert len(list((tmp_path / "blocks" / "00").iterdir())) == 1


def test_an_interrupted_copy_leaves_nothing(s3: Store, tmp_path: Path) -> None:
    s3.put("s3://data/m/a.json", b"1")
    s3.put("s3://data/m/b.json", b"2")
    s3.rule = lambda request: 500 if "b.json" in request.path and request.method == "GET" else None
    with pytest.raises(UserError, match=r"s3://data/m/b\.json: it could not be read in 3 tries"):
        local_copy("s3://data/m")
    assert not list((tmp_path / "cache" / "folders").glob("*/m*"))
    s3.rule = lambda request: None
    assert (local_copy("s3://data/m") / "b.json").read_text() == "2"


def test_a_folder_is_uploaded_with_what_makes_it_whole_last(s3: Store, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "m" / name).write_text(json.dumps(name))
    upload(tmp_path / "m", "s3://data/models/m", last="config.json")
    puts = [request.path for request in s3.requests if request.method == "PUT"]
    assert puts[-1].startswith("data/models/m/config.json")
    assert model_hash(resolve_model("s3://data/models/m")) == model_hash(tmp_path / "m")
    with pytest.raises(UserError, match="s3://data/models/m: something is there already"):
        upload(tmp_path / "m", "s3://data/models/m", last="config.json")
    forget()


@pytest.mark.parametrize(
    "line",
    [
        "pretrain demo --to s3://data/run",
        "data build scenes --to=s3://data/scenes",
        "data clean s3://data/scenes --to data/clean",
        "report s3://data/run",
        "compare runs/a s3://data/run",
        "data show scenes/train --html s3://data/page.html",
        "scale fit s3://data/points.csv",
        "caption runs/a s3://data/a.png",
        "headline runs/a runs/b s3://data/run --to scores.json",
        "launch --dry-run pretrain demo --to s3://data/run",
        "study lessons --to s3://data/lessons",
    ],
)
def test_commands_that_need_a_folder_say_so(line: str) -> None:
    with pytest.raises(UserError, match=r"s3://data/[\w.]+: a file or folder of a disk .*aws s3 cp --recursive"):
        CliRunner().invoke(app, line.split(), catch_exceptions=False)


def functions(app: typer.Typer) -> Iterator[Callable[..., object]]:
    yield from (command.callback for command in app.registered_commands if command.callback)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from functions(group.typer_instance)


def test_every_parameter_that_is_a_path_refuses_an_address() -> None:
    """Whatever commands and options come."""
    refusing = 0
    for function in functions(app):
        for name, hint in get_type_hints(function).items():
            several = get_origin(hint) is list
            if hint is Path or Path in get_args(hint):
                address = Path("s3://data/x")
                with pytest.raises(UserError, match="s3://data/x: a file or folder of a disk"):
                    function(**{name: [address] if several else address})
                refusing += 1
    assert refusing > 30
