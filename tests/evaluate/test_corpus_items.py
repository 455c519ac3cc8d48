"""The items of a corpus's split: as its documents have them, and no picture is read to find them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm1.data import batches, corpus
from mm1.data.corpus import open_split, write_corpus
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.tasks.items import chosen_items, chosen_rows, open_items
from mm1.evaluate.tasks.task import ItemSource

COUNT = 450  # of three record batches


@pytest.fixture(params=["answers", "captions"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ItemSource:
    documents = [
        Document(
            f"d{number}",
            "caption",
            (Image(bytes([number % 256]) * 500), Text(f" text {number} "), Text("unseen", target=False), Text("end")),
            {"question": f"what {number}?", "answer": str(number)},
        )
        for number in range(COUNT)
    ]
    write_corpus(tmp_path / "c", {"train": documents}, licence="none", sources=[])
    keys: dict[str, Any] = {"answers": "answer"} if request.param == "answers" else {}
    return ItemSource.model_validate({"corpus": str(tmp_path / "c" / "train"), **keys})


def test_items_are_those_of_the_whole_documents(source: ItemSource) -> None:
    items = open_items(source)
    whole = [replace(items[row], images=()) for row in range(len(items))]
    assert whole[7].answers == (("7",) if source.answers else ("text 7 end",))
    assert list(items.without_pictures()) == whole
    assert list(items.ids()) == [item.id for item in whole]
    rows = np.random.default_rng(0).permutation(COUNT)[:50].tolist()
    assert list(items.without_pictures(rows)) == [whole[row] for row in rows]


def test_only_what_a_file_names_is_read(source: ItemSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = tmp_path / "ids.txt"
    only.write_text("d300\nd4\nd7")
    items = open_items(source)
    read: list[int] = []
    row = batches.Batches.row

    def noted(self: batches.Batches, number: int) -> pa.RecordBatch:
        read.append(number)
        return row(self, number)

    monkeypatch.setattr(batches.Batches, "row", noted)
    monkeypatch.setattr(corpus, "from_row", lambda *_: pytest.fail("a whole document was read"))
    assert list(chosen_rows(items, str(only))) == [("d4", 4), ("d7", 7), ("d300", 300)]
    assert read == []
    assert [item.id for item in chosen_items(items, str(only))] == ["d4", "d7", "d300"]
    assert read == [4, 7, 300]
    only.write_text("d3\nnothing")
    with pytest.raises(UserError, match=r"ids.txt: 1 ids are not in .*, for example 'nothing'"):
        list(chosen_items(items, str(only)))


def test_a_row_without_pictures_is_that_of_a_pass(source: ItemSource) -> None:
    split = open_split(str(source.corpus))
    assert [split.row_without_pictures(row) for row in range(COUNT)] == list(split.without_pictures())
    assert [document.id for document in split.without_pictures(190, 210)] == [f"d{n}" for n in range(190, 210)]
