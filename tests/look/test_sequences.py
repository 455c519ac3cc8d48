from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.look.sequences import pieces_of, show_sequences, write_sequences
from mm1.plan.loader import PlanDataset
from mm1.recipe import load_recipe
from mm1.train.prepare import make_plan, open_sequences
from tests.conftest import tiny_documents


@pytest.fixture
def run(data: Path, recipe_file: Path, tmp_path: Path) -> Path:
    make_plan(load_recipe(str(recipe_file)), tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def dataset(run: Path) -> PlanDataset:
    return open_sequences(run)


def test_spans_are_what_the_loader_gives(dataset: PlanDataset) -> None:
    for number in range(len(dataset)):
        sequence = dataset[number]
        sorts = [s.sort for piece in pieces_of(dataset, number) for s in piece.spans for _ in range(s.tokens)]
        assert len(sorts) == sequence.tokens
        assert np.array_equal(np.flatnonzero([s == "image" for s in sorts]), sequence.image_positions)
        assert np.array_equal(np.flatnonzero([s == "target" for s in sorts]), sequence.target_positions + 1)


def test_the_text_of_whole_documents_is_theirs(dataset: PlanDataset) -> None:
    for number in range(12):
        for piece in pieces_of(dataset, number):
            text = "".join(span.content for span in piece.spans if isinstance(span.content, str))
            pictures = [span.content for span in piece.spans if isinstance(span.content, Image)]
            if piece.tokens == piece.document_tokens:
                assert text == f"<bos>{piece.document.text}<eos>"
                assert pictures == list(piece.document.images)
            else:
                assert f"tokens {piece.first} to" in str(piece)


def test_in_the_terminal(dataset: PlanDataset) -> None:
    out = io.StringIO()
    console = Console(file=out, width=140)
    show_sequences(dataset, [0, 1, 2], console)
    text = out.getvalue()
    assert re.search(r"sequence 0 of step 1: caption from captions/train, \d pieces, \d+ of 48 tokens", text)
    assert "[picture 20x20 PNG 0.1 KB, 4 tokens]" in text
    bars = [line for line in text.splitlines() if re.fullmatch("[▒█░·]+", line)]
    assert [len(bar) for bar in bars] == [48, 48, 48]
    with pytest.raises(UserError, match="sequence 48 doesn't exist: choose one from 0 to 47"):
        show_sequences(dataset, [48], console)


def test_as_a_page(data: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    mean = Document("<b>", "caption", (Image(b"no picture"), Text(" <script>alert(1)</script>")))
    for name, some in (("captions", [mean]), ("pages", tiny_documents("interleaved", 9)), ("prose", [mean])):
        write_corpus(tmp_path / "data" / name, {"train": some}, licence="none", sources=[])
    make_plan(load_recipe(str(recipe_file)), tmp_path / "run")
    write_sequences(open_sequences(tmp_path / "run"), range(4), tmp_path / "page.html", "a <title>")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &lt;title&gt;" in page
    assert page.count("<section>") == 4
    assert "data:image/png;base64," in page
    assert "unreadable picture" in page


def test_a_run_without_a_plan_or_of_other_corpora_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has no plan: make one with `mm1 data plan"):
        open_sequences(tmp_path)
    file = run / "plan" / "plan.json"
    info = json.loads(file.read_text())
    info["made_from"]["content"]["pages/train"] = "other"
    file.write_text(json.dumps(info))
    with pytest.raises(UserError, match="pages/train: the corpus has changed since"):
        open_sequences(run)


def test_a_plan_can_be_had_without_keeping_it(data: Path, recipe_file: Path, run: Path) -> None:
    info = make_plan(load_recipe(str(recipe_file)))
    assert info == json.loads((run / "plan" / "plan.json").read_text())
    assert make_plan(load_recipe(str(recipe_file), ["train.steps=3"]))["sequences"] == 12
