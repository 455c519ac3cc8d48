"""Datasets of the Hub without a revision: the newest commit is read, recorded, and kept to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from mm1.cli import app
from mm1.data import build
from mm1.data.build import build_from, read_shard
from mm1.data.corpus import Split
from mm1.data.readers import hub
from mm1.errors import UserError
from tests.data.sample_sources import write_lines


@pytest.fixture
def commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Hub with the dataset `owner/words`: its commits, the newest last, which change what it holds."""
    known = ["a" * 40]

    def load_dataset(name: str, subset: str | None, *, split: str, revision: str | None, streaming: bool) -> Any:
        assert name == "owner/words"
        assert revision in known, "every reading names its commit"
        folder = tmp_path / "hub" / revision
        for file in range(2):
            write_lines(folder / f"train-{file}.jsonl", [{"text": f"{revision[0]} {file}"}])
        return datasets.load_dataset(str(folder), subset, split=split, streaming=streaming)

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "HfApi", lambda: SimpleNamespace(dataset_info=lambda name: SimpleNamespace(sha=known[-1])))
    hub._open.cache_clear()
    return known


def built(folder: Path, **more: Any) -> tuple[str, list[str]]:
    """Build it; return the commit that the corpus says, and the texts."""
    info = build_from("hub", ["owner/words"], folder, workers=1, **more)
    return info["splits"]["train"]["built"]["options"]["revision"], [
        document.text for document in Split(folder / "train")
    ]


def test_the_corpus_says_its_commit_and_stays_with_it(tmp_path: Path, commits: list[str]) -> None:
    first, second = commits[0], "b" * 40
    assert built(tmp_path / "words") == (first, ["a 0", "a 1"])
    commits.append(second)
    assert built(tmp_path / "words") == (first, ["a 0", "a 1"])
    assert built(tmp_path / "words", limit=1) == (first, ["a 0"])
    assert built(tmp_path / "words", options={"revision": second}) == (second, ["b 0", "b 1"])
    assert built(tmp_path / "new") == (second, ["b 0", "b 1"])
    commits.append("c" * 40)
    assert built(tmp_path / "new", force=True) == ("c" * 40, ["c 0", "c 1"])


def test_an_interrupted_build_goes_on_from_its_commit(
    tmp_path: Path, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(reader: Any, shard: Any, *arguments: Any, **more: Any) -> dict[str, Any]:
        if shard.part == 1:
            raise OSError("stopped")
        return read_shard(reader, shard, *arguments, **more)

    monkeypatch.setattr(build, "read_shard", stopping)
    with pytest.raises(UserError, match="stopped"):
        built(tmp_path / "words")
    monkeypatch.setattr(build, "read_shard", read_shard)
    commits.append("b" * 40)
    assert built(tmp_path / "words") == ("a" * 40, ["a 0", "a 1"])


def test_collect_records_the_commit_of_a_limited_source(
    tmp_path: Path, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{name: x, data: {mixture: {text: {weight: 1, sources: [{corpus: some/words, "
        "build: {format: text, hub: owner/words, limit: 1}}]}}}}"
    )
    CliRunner().invoke(app, ["data", "collect", str(recipe), "--workers", "1"], catch_exceptions=False)
    split = Split(tmp_path / "data" / "some" / "words")
    assert [document.text for document in split] == ["a 0"]
    assert (split.info["built"]["options"]["revision"], split.info["built"]["limit"]) == (commits[0], 1)


def test_a_hub_out_of_reach_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"owner/words: the dataset can't be opened .*check its id"):
        build_from("hub", ["owner/words"], tmp_path / "to", workers=1)
