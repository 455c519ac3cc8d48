"""What is said of captions before training, and what a process holds of a corpus."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mm1.data.corpus import Split, open_split, write_corpus
from mm1.document import Document, Image, Text
from mm1.encoder import captions
from mm1.encoder.captions import check_captions
from mm1.encoder.pictures import PictureDataset
from mm1.encoder.selection import select_pictures
from mm1.errors import UserError
from mm1.processing.tokenizer import train_tokenizer

TEXTS = [f" a picture of {number**2 % 41}" for number in range(300)]


def split_of(directory: Path, texts: list[str]) -> Split:
    documents = [Document(str(n), "caption", (Image(b"x"), Text(text))) for n, text in enumerate(texts)]
    write_corpus(directory, {"train": documents}, licence="none", sources=[])
    return open_split(str(directory / "train"))


def test_the_number_of_different_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split = split_of(tmp_path / "c", TEXTS)
    for looked_at, among in ((10**6, ""), (210, " among the first 210")):
        monkeypatch.setattr(captions, "LOOKED_AT", looked_at)
        check_captions({"c/train": split})
        (_, most), *_ = (counts := Counter(TEXTS[:looked_at])).most_common()
        said = " ".join(capsys.readouterr().err.split())
        share = most / min(looked_at, len(TEXTS))
        assert f"c/train: {len(counts)} different captions{among}; {share:.1%} of the pictures have" in said


def test_captions_that_are_alike_in_all_splits(tmp_path: Path) -> None:
    same, other = split_of(tmp_path / "a", [" red"] * 5), split_of(tmp_path / "b", [" red"] * 3)
    with pytest.raises(UserError, match=r"a, b: all captions are the same \('red'\)"):
        check_captions({"a": same, "b": other})
    check_captions({"a": same, "b": split_of(tmp_path / "c", [" red", " blue"])})


def test_rows_travel_to_workers_as_files(tmp_path: Path) -> None:
    split = split_of(tmp_path / "c", TEXTS)
    rows = select_pictures(split, train_tokenizer(TEXTS, 300), 20, captions=True).rows
    plan: Any = SimpleNamespace(info={"sources": {"c": {"kind": "caption"}}})
    recipe: Any = None
    dataset = PictureDataset(plan, [split], [rows], 16, recipe, 0)
    sent = pickle.dumps(dataset)
    assert len(sent) < 2000 < rows.nbytes
    assert np.array_equal(pickle.loads(sent).rows[0], rows)
    in_memory = PictureDataset(plan, [split], [np.arange(3)], 16, recipe, 0)
    assert pickle.loads(pickle.dumps(in_memory)).rows[0].tolist() == [0, 1, 2]
