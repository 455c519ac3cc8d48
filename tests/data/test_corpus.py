from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.data import corpus as corpus
from mm1.data.corpus import open_split, write_corpus
from mm1.data.skips import Skips
from mm1.document import Document, Image, Text
from mm1.errors import UserError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
parts = st.one_of(st.builds(Text, text, st.booleans()), st.builds(Image, st.binary(max_size=20)))
documents = st.lists(
    st.builds(
        Document,
        text,
        st.sampled_from(["caption", "interleaved", "text", "chat"]),
        st.lists(parts, max_size=5).map(tuple),
        st.dictionaries(text, st.one_of(text, st.integers(-9, 9), st.lists(text, max_size=2)), max_size=3),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda d: d.id,
)


@given(documents)
@settings(max_examples=40)
def test_what_is_written_is_read(tmp_path_factory, written) -> None:
    directory = tmp_path_factory.mktemp("corpora") / "mine"
    info = write_corpus(directory, {"train": written}, licence="CC0", sources=["here"])
    split = open_split(str(directory / "train"))
    assert list(split) == written
    assert [split[i] for i in range(len(split))] == written
    assert info["splits"]["train"]["images"] == sum(len(d.images) for d in written)


def one(name: str, **more) -> Document:
    return Document(name, "text", (Text("a"),), more)


def test_content_decides_the_hash(tmp_path: Path) -> None:
    contents = [[one("a")], [one("b")], [one("a", x=1)], [one("a"), one("b")], [one("b"), one("a")]]
    hashes = [
        write_corpus(tmp_path / str(i), {"train": c}, licence="", sources=[])["splits"]["train"]["content_hash"]
        for i, c in enumerate([*contents, contents[0]])
    ]
    assert len(set(hashes)) == len(contents)
    assert hashes[0] == hashes[-1]


def test_skips_are_counted_with_examples(tmp_path: Path) -> None:
    skips = Skips()
    for i in range(9):
        skips.add("too small", f"row {i}")
    info = write_corpus(tmp_path / "c", {"train": [one("a")]}, licence="", sources=[], skips=skips)
    assert info["skipped"] == {"too small": {"count": 9, "examples": [f"row {i}" for i in range(5)]}}
    assert json.loads((tmp_path / "c" / "corpus.json").read_text()) == info


def test_duplicate_ids_are_refused_and_the_corpus_before_stays(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", {"train": [one("a")]}, licence="", sources=[])
    with pytest.raises(UserError, match="two documents have the id 'b'"):
        write_corpus(tmp_path / "c", {"train": [one("b"), one("b")]}, licence="", sources=[])
    assert [d.id for d in open_split(str(tmp_path / "c" / "train"))] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(corpus.ShardWriter, "_flush", full)
    with pytest.raises(UserError, match="No space left on device.*free some space"):
        write_corpus(tmp_path / "c", {"train": [one("a")]}, licence="", sources=[])
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    write_corpus(tmp_path / "c", {"train": [one("a")]}, licence="", sources=[])
    with pytest.raises(UserError, match="no corpus there.*mm1 data build scenes"):
        open_split("scenes/train")
    with pytest.raises(UserError, match="no split 'test': name one of train"):
        open_split("c/test")
    with pytest.raises(UserError, match=r"this is a whole corpus: name one of its splits \(c/train\)"):
        open_split("c")


@pytest.mark.parametrize("content", ["", '{"splits": {"train"', "[]", "{}", '{"splits": 1}'])
def test_a_damaged_description_is_named(tmp_path: Path, content: str) -> None:
    write_corpus(tmp_path / "c", {"train": [one("a")]}, licence="", sources=[])
    (tmp_path / "c" / "corpus.json").write_text(content)
    for reference in (tmp_path / "c" / "train", tmp_path / "c"):
        with pytest.raises(UserError, match=r"c/corpus.json: the corpus is damaged .*: build it again"):
            open_split(str(reference))
