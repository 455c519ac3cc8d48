"""Synthetic captions: what a model says of each picture, and that a build which was stopped goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import mm1.evaluate.recaption as module
from mm1.cli import main
from mm1.data.corpus import open_split, write_corpus
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.caption import caption_image
from mm1.evaluate.recaption import recaption
from tests.evaluate.conftest import COLORS, square


@pytest.fixture
def home(tmp_path: Path, model, processor, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a corpus of captions (and a few other things in it) and a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    model.save_pretrained(tmp_path / "run" / "model")
    processor.save_pretrained(tmp_path / "run" / "model")
    documents = [
        Document(f"c/{n}", "caption", (square(COLORS[n % 4], dot=n), Text(f" square {n}")), {"n": n}) for n in range(10)
    ]
    documents.append(Document("damaged", "caption", (Image(b"\x89PNG\r\n\x1a\n"), Text(" nothing"))))
    documents.append(Document("words", "text", (Text("no picture at all"),)))
    write_corpus(tmp_path / "data" / "alt", {"train": documents}, licence="CC0", sources=["made here"])
    module._generator.cache_clear()
    return tmp_path


def test_every_picture_gets_the_models_words(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "recaption", "alt/train", "--model", "run", "--to", "data/alt-synthetic"]
    monkeypatch.setattr(sys, "argv", ["mm1", *command])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "The captions are synthetic" in " ".join(capsys.readouterr().err.split())
    made, original = open_split("alt-synthetic/train"), open_split("alt/train")
    said = 0
    for document in original:
        if document.kind != "caption" or document.id == "damaged":
            continue
        (home / "picture.png").write_bytes(document.images[0].read())
        words = caption_image(home / "run", home / "picture.png")
        found = [other for other in made if other.id == document.id]
        assert [other.parts for other in found] == ([(document.images[0], Text(f" {words}"))] if words else [])
        assert all(other.meta == {**document.meta, "original_caption": document.text.strip()} for other in found)
        said += bool(words)
    assert len(made) == said > 0
    assert made.corpus["licence"] == "CC0"
    reasons = {reason: entry["count"] for reason, entry in made.corpus["skipped"].items()}
    assert reasons.pop("not a captioned picture") == 1
    assert reasons.pop("picture that can't be decoded") == 1
    assert reasons.pop("empty caption", 0) == 10 - said


def test_it_goes_on_and_makes_nothing_twice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PICTURES_AT_ONCE", 4)
    calls: list[range] = []
    real = module.caption_rows

    def stopping(split, model, rows, file):
        calls.append(rows)
        if len(calls) == 2:
            raise UserError("stopped here")
        return real(split, model, rows, file)

    monkeypatch.setattr(module, "caption_rows", stopping)
    with pytest.raises(UserError, match="stopped here"):
        recaption("alt/train", "run", home / "data" / "new")
    assert not (home / "data" / "new").exists()
    info = recaption("alt/train", "run", home / "data" / "new")
    assert calls == [range(4), range(4, 8), range(4, 8), range(8, 12)]
    assert recaption("alt/train", "run", home / "data" / "new") == info
    assert len(calls) == 4
    fewer = recaption("alt/train", "run", home / "data" / "new", limit=4)
    assert len(calls) == 5
    assert fewer["splits"]["train"]["documents"] <= 4


def test_a_corpus_is_not_captioned_into_itself(home: Path) -> None:
    with pytest.raises(UserError, match="choose another one with --to"):
        recaption("alt/train", "run", home / "data" / "alt")
    with pytest.raises(UserError, match="is no model"):
        recaption("alt/train", "data", home / "data" / "new")
