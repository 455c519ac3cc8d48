"""Conversations derived from other corpora, and the pictures that need resolution."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from mm1.corpora import build_corpus
from mm1.corpora.find import PLACES
from mm1.corpora.scene import NOUNS
from mm1.data.corpus import Split, open_split
from mm1.document import Document, Text
from mm1.errors import UserError
from tests.corpora.fake_sources import NOUN_RGB, put_emoji_groups, put_sources


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with chats and find, from small stand-ins of the packages."""
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(data))
        put_sources(data)
        put_emoji_groups(data / "downloads")
        for name in ("openmoji", "easy-vqa", "text"):
            build_corpus(name)
        build_corpus("chats", count=200, captions="openmoji/train")
        build_corpus("find", count=30, heldout=20, things=4, drawing=32, nouns=12, color=True)
    return data


@pytest.fixture
def chats(built: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    monkeypatch.setenv("MM1_DATA", str(built))
    return open_split("chats/train")


def said(document: Document, role: str) -> list[str]:
    roles = document.meta["turns"]
    return [p.text for p, r in zip(document.parts, roles, strict=True) if r == role and isinstance(p, Text)]


def test_every_kind_of_conversation(chats: Split) -> None:
    kinds: dict[str, list[Document]] = {}
    for document in chats:
        kinds.setdefault(document.meta["kind"], []).append(document)
        assert document.meta["turns"][0] == "user"
        assert document.meta["turns"][-1] == "assistant"
        for part, role in zip(document.parts, document.meta["turns"], strict=True):
            assert not isinstance(part, Text) or part.target == (role == "assistant")
        assert all(said(document, "assistant"))
    assert set(kinds) == {"names", "questions", "two pictures", "text", "captions"}
    assert {len(document.images) for document in kinds["two pictures"]} == {2}
    assert {len(document.images) for document in kinds["text"]} == {0}
    assert max(len(said(document, "user")) for document in kinds["questions"]) > 2


def test_answers_are_the_sources(chats: Split, built: Path) -> None:
    names = {document.images[0].data: document.meta["names"] for document in open_split("openmoji/train")}
    shapes = {document.images[0].data: document.meta["caption"] for document in open_split("easy-vqa/train-captions")}
    asked = {
        (document.images[0].data, question.removeprefix(" "), answer)
        for document in open_split("easy-vqa/train")
        for question, answer in zip(*[iter(p.text for p in document.parts if isinstance(p, Text))] * 2, strict=True)
    }
    prose = [" ".join(document.text.split()) for document in open_split("text/train")]
    for document in chats:
        questions, answers = said(document, "user"), said(document, "assistant")
        match document.meta["kind"]:
            case "names":
                assert answers[0] == names[document.images[0].data]["en"]
                assert all(answer in names[document.images[0].data].values() for answer in answers)
            case "questions":
                for question, answer in zip(questions, answers, strict=True):
                    assert (document.images[0].data, f"Question: {question} Short answer:", f" {answer}\n") in asked
            case "text":
                whole = f"{questions[0].removeprefix('Go on: ')} {answers[0]}"
                assert any(text.startswith(whole) for text in prose)
            case "two pictures":
                first, second = (shapes[image.data].split()[1:] for image in document.images)
                for question, answer in zip(questions, answers, strict=True):
                    right = {
                        "What is in the first picture?": f"a {' '.join(first)}",
                        "What is in the second picture?": f"a {' '.join(second)}",
                        "Are both of the same color?": "yes" if first[0] == second[0] else "no",
                        "Are both of the same shape?": "yes" if first[1] == second[1] else "no",
                    }
                    assert right[question] == answer


def test_it_says_that_it_is_derived_and_whence(chats: Split) -> None:
    assert chats.corpus["derived"].startswith("Conversations are made up around other corpora's pictures")
    assert "corpus easy-vqa/train" in chats.corpus["sources"]
    assert "OpenMoji" in chats.corpus["licence"]


def test_a_corpus_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    with pytest.raises(UserError, match="build it with `mm1 data build openmoji`"):
        build_corpus("chats")


def test_find_says_what_is_where(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in the pixels: every drawing of the stand-ins has a colour of its own."""
    monkeypatch.setenv("MM1_DATA", str(built))
    for split in ("train", "heldout"):
        for document in open_split(f"find/{split}"):
            pixels = np.asarray(Pillow.open(io.BytesIO(document.images[0].read())))
            assert pixels.shape == (256, 256, 3)
            for number, place in enumerate(PLACES):
                quarter = pixels[number // 2 * 128 :][:128, number % 2 * 128 :][:, :128]
                rows, columns = np.nonzero((quarter != 255).any(-1))
                assert max(np.ptp(rows), np.ptp(columns)) == 31
                centre = quarter[(rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2]
                nearest = min(NOUNS, key=lambda noun: np.abs(np.array(NOUN_RGB[noun]) - centre.astype(int)).sum())
                assert nearest == document.meta["there"][place]
            for question, answer in zip(said(document, "user"), said(document, "assistant"), strict=True):
                assert document.meta["there"][question.removeprefix("What is at the ").rstrip("?")] == answer
    heldout = open_split("find/heldout")
    assert {len(document.parts) for document in heldout} == {3}
    assert heldout[0].meta["answer"] == said(heldout[0], "assistant")[0]


def test_find_with_one_grey_drawing_a_picture(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(built))
    build_corpus("find", tmp_path / "one", count=10, heldout=5)
    for document in open_split(str(tmp_path / "one" / "train")):
        pixels = np.asarray(Pillow.open(io.BytesIO(document.images[0].read())).convert("RGB")).astype(int)
        assert (pixels == pixels[..., :1]).all()
        rows, columns = np.nonzero((pixels != 255).any(-1))
        assert max(np.ptp(rows), np.ptp(columns)) == 15
        assert said(document, "user") == ["What is in the picture?"]
        assert [*document.meta["there"].values()] == said(document, "assistant")


@pytest.mark.parametrize("options", [{"nouns": 3}, {"drawing": 200}, {"count": 0}, {"things": 5}])
def test_impossible_sizes(options: dict, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(built))
    with pytest.raises(UserError, match="options of corpus find: set"):
        build_corpus("find", **options)


def test_the_same_seed_gives_the_same(built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MM1_DATA", str(built))
    options: dict[str, Any] = {"count": 30, "heldout": 20, "things": 4, "drawing": 32, "nouns": 12, "color": True}
    again = build_corpus("find", tmp_path / "find", **options)
    assert again["splits"]["train"]["content_hash"] == open_split("find/train").content_hash
    other = build_corpus("find", tmp_path / "other", **options, seed=1)
    assert other["splits"]["train"]["content_hash"] != again["splits"]["train"]["content_hash"]
