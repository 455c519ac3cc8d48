"""Endings of held-out passages: one follows, the others are its words in another order, and a task asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm1.corpora.continuations import CONTEXT, ENDING, OPTIONS, continuations
from mm1.data.corpus import write_corpus
from mm1.document import Document, Text
from mm1.evaluate.tasks.items import open_items
from mm1.evaluate.tasks.task import load_task


def passage(name: str, words: int) -> Document:
    return Document(name, "text", (Text(" ".join(f"{name}{n}" for n in range(words))),))


def test_one_ending_follows_and_the_others_have_its_words() -> None:
    whole = CONTEXT + ENDING
    dull = Document("dull", "text", (Text(" ".join(["again"] * whole)),))
    passages = [passage("a", 3 * whole + 5), passage("b", whole), passage("short", whole - 1), dull]
    items = list(continuations(passages, seed=0))
    assert [item.id for item in items] == ["a/0", "a/1", "a/2", "b/0"]
    for item in items:
        context, answer, options = item.meta["context"], item.meta["answer"], item.meta["options"]
        assert f"{context} {answer}" in next(p.text for p in passages if item.id.startswith(p.id + "/"))
        assert len(set(options)) == OPTIONS
        assert answer in options
        assert {tuple(sorted(option.split())) for option in options} == {tuple(sorted(answer.split()))}
        assert item.text == f"{context} {answer}"
    assert [item.meta for item in continuations(passages, seed=0)] == [item.meta for item in items]
    places = {item.meta["options"].index(item.meta["answer"]) for s in range(9) for item in continuations(passages, s)}
    assert places == set(range(OPTIONS))


def test_the_task_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    passages = [passage(name, CONTEXT + ENDING) for name in "abcdef"]
    write_corpus(tmp_path / "text", {"continuations": continuations(passages, 0)}, licence="none", sources=["here"])
    items = open_items(load_task("text-continuation").data)
    assert len(items) == 6
    assert items[2].answers[-1] == items[2].fields["answer"]
    assert len(items[2].options) == OPTIONS
