from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mm1.data.corpus import open_split, write_corpus
from mm1.document import Document, Image, Text
from mm1.look.stats import bins, show_plan_stats, show_stats, split_stats
from mm1.plan.plan import Plan
from mm1.recipe import load_recipe
from mm1.train.prepare import make_plan
from tests.conftest import png


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
def test_bins_hold_every_value_once_and_their_labels_are_true(values) -> None:
    counted = dict(bins(np.array(values)))
    for label, count in counted.items():
        low, _, high = label.replace(",", "").partition("–")
        assert count == sum(int(low) <= value <= int(high or low) for value in values)
    assert sum(counted.values()) == len(values)


@pytest.mark.parametrize("values", [[0, 0], [3, 5], [1 << 40, 0]])
def test_gaps_between_bins_show(values) -> None:
    rows = bins(np.array(values))
    assert len(rows) == {0: 1, 5: 3}.get(max(values), 42)


def test_stats_are_those_of_the_documents(data: Path) -> None:
    for name in ("captions/train", "pages/train", "prose/train"):
        split = open_split(name)
        stats = split_stats(split)
        documents = list(split)
        assert stats.characters.tolist() == [len(document.text) for document in documents]
        assert stats.images.tolist() == [len(document.images) for document in documents]
        assert stats.target_characters.tolist() == [
            sum(len(part.text) for part in document.parts if isinstance(part, Text) and part.target)
            for document in documents
        ]
        assert set(stats.picture_sides.tolist()) == ({20} if name != "prose/train" else set())


def test_they_are_shown(tmp_path: Path) -> None:
    documents = [
        Document("a", "caption", (Image(png("red", 40)), Text(" ein schönes Bild", target=False))),
        Document("b", "caption", (Image(b"no picture"),)),
        Document("c", "text", ()),
    ]
    write_corpus(tmp_path / "corpus", {"train": documents, "none": []}, licence="none", sources=[])
    out = io.StringIO()
    console = Console(file=out, width=120)
    show_stats(open_split(str(tmp_path / "corpus" / "train")), console)
    text = out.getvalue()
    assert "corpus/train: 3 documents (2 caption, 1 text), 2 images, 17 characters, 0% of them targets" in text
    assert "longer side of 2 images in pixels" in text
    show_stats(open_split(str(tmp_path / "corpus" / "none")), console)
    assert "corpus/none: 0 documents" in out.getvalue()


def test_a_plan_is_shown_kind_by_kind(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    make_plan(load_recipe(str(recipe_file)), tmp_path / "run")
    plan = Plan(tmp_path / "run" / "plan")
    out = io.StringIO()
    console = Console(file=out, width=120)
    show_plan_stats(plan, console)
    text = out.getvalue()
    captions, pages, prose = text.split("free tokens per sequence")[:3]
    assert f"caption: {plan.info['kinds']['caption']['sequences']} sequences" in captions
    mean = plan.info["kinds"]["interleaved"]["images"] / plan.info["kinds"]["interleaved"]["sequences"]
    assert f"mean {mean:.1f}" in pages.split("images per sequence (limit 4)")[1]
    assert "mean 0.0" in prose.split("images per sequence")[1]
