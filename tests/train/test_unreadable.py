"""Unreadable pictures stop a run by their share of the last ones, not by their number in all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from mm1.train.unreadable import UnreadableWatch
from tests.conftest import breaking_at, tiny_documents


@pytest.mark.parametrize("per_step", [1, 7, 512, 20_000])
def test_one_in_two_hundred_never_stops_and_one_in_fifty_does(per_step: int) -> None:
    def play(every: int, pictures: int) -> UnreadableWatch:
        watch = UnreadableWatch()
        for first in range(0, pictures, per_step):
            numbers = range(first, first + per_step)
            watch.add(per_step, sum(number % every == 0 for number in numbers))
        return watch

    assert len(play(200, 60_000).counts) <= 102  # what a checkpoint has to hold
    with pytest.raises(UserError, match=r"of the last [\d,]+ pictures can't be read"):
        play(50, 60_000)


def test_a_folder_that_goes_missing_late_stops_soon() -> None:
    watch = UnreadableWatch()
    for _ in range(10_000):
        watch.add(64, 0)
    watch.add(64, 64)
    with pytest.raises(UserError, match="128 of the last 10,"):
        watch.add(64, 64)


def test_a_run_stops_and_says_what_to_do_and_a_resumed_one_remembers(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    broken = [Document(str(i), "caption", (Image(b"no"), Text(" a square"))) for i in range(40)]
    for name, documents in (("captions", broken), ("prose", tiny_documents("text", 9))):
        write_corpus(tmp_path / "data" / name, {"train": documents}, licence="none", sources=["made up"])
    settings = ["data.mixture.interleaved.weight=0", "data.mixture.caption.weight=0.9", "train.checkpoint_every=2"]
    run = tmp_path / "run"
    with breaking_at(5):
        pretrain(load_recipe(str(recipe_file), settings), run)
    seen = json.loads((run / "checkpoints" / "step-000004" / "state.json").read_text())["bad_images"]
    assert 0 < seen < 100
    with pytest.raises(UserError, match=r"1\d\d of the last 1\d\d pictures can't be read .*rebuild or clean"):
        pretrain(load_recipe(str(recipe_file), settings), run)
    assert not (run / "model").exists()
