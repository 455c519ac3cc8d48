import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm1.corpora import build_corpus
from mm1.corpora.easy_vqa import COLORS, SHAPES, derive, read_pictures
from mm1.data.corpus import open_split
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from tests.corpora.fake_sources import put_easy_vqa, true_questions, write_tar

Truth = dict[str, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Truth, Path]:
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(data))
        truth = put_easy_vqa(data / "downloads")
        return build_corpus("easy-vqa"), truth, data / "easy-vqa"


def asked(document: Document) -> list[tuple[str, str]]:
    """Take the questions and answers back out of a document's text."""
    lines = document.text.rstrip("\n").lstrip(" ").split("\n")
    pairs = [line.removeprefix("Question: ").split(" Short answer: ") for line in lines]
    return [(question, answer) for question, answer in pairs]


def test_every_training_question_once(built: tuple[dict, Truth, Path]) -> None:
    _, truth, directory = built
    documents = list(open_split(str(directory / "train")))
    found = Counter((d.meta["picture"], *pair) for d in documents for pair in asked(d))
    assert len(found) == 12 * len(truth["train"])
    assert set(found.values()) == {1}
    for (picture, *pair), _ in found.items():
        assert tuple(pair) in true_questions(*truth["train"][picture])
    assert {len(asked(d)) for d in documents} == {4}  # 12 questions in three documents of at most 5


def test_form_of_a_training_document(built: tuple[dict, Truth, Path]) -> None:
    _, _, directory = built
    document = open_split(str(directory / "train"))[0]
    assert document.kind == "interleaved"
    image, *texts = document.parts
    assert isinstance(image, Image)
    for number, text in enumerate(texts):
        assert isinstance(text, Text)
        assert text.target == (number % 2 == 1)
        if text.target:
            assert text.text.startswith(" ")
            assert text.text.endswith("\n")
        else:
            assert text.text.startswith(" Question: " if number == 0 else "Question: ")
            assert text.text.endswith("? Short answer:")


def test_form_of_a_test_document(built: tuple[dict, Truth, Path]) -> None:
    _, truth, directory = built
    documents = list(open_split(str(directory / "test")))
    assert len(documents) == 12 * len(truth["test"])
    for document in documents:
        image, prompt, answer = document.parts
        assert isinstance(image, Image)
        question = document.meta["question"]
        assert prompt == Text(f" Question: {question} Short answer:", target=False)
        assert answer == Text(f" {document.meta['answer']}")
        assert (question, document.meta["answer"]) in true_questions(*truth["test"][document.meta["picture"]])


def test_captions_are_true_and_missing_ones_counted(built: tuple[dict, Truth, Path]) -> None:
    info, truth, directory = built
    captions = 0
    for split in ("train", "test"):
        for document in open_split(str(directory / f"{split}-captions")):
            color, shape = truth[split][document.meta["picture"]]
            assert document.kind == "caption"
            assert document.text == f" a {color} {shape}"
            captions += 1
    skipped = sum(reason["count"] for reason in info["skipped"].values())
    assert captions + skipped == len(truth["train"]) + len(truth["test"])
    assert captions > 0


@given(
    st.sampled_from(COLORS),
    st.sampled_from(SHAPES),
    st.integers(0, 50),
    st.randoms(use_true_random=False),
)
def test_derived_is_true_or_nothing(color: str, shape: str, count: int, draw: random.Random) -> None:
    questions = true_questions(color, shape)
    chosen = draw.sample(questions, min(count, len(questions)))
    assert derive(chosen) in {(c, s) for c in (color, None) for s in (shape, None)}
    assert derive([*chosen, *questions[:3]]) == (color, shape)


def test_each_source_of_evidence() -> None:
    assert derive([("what color is the triangle?", "gray")]) == ("gray", "triangle")
    assert derive([("what is the teal shape?", "circle")]) == ("teal", "circle")
    assert derive([("is a red shape present?", "yes")]) == ("red", None)
    assert derive([("is there not a blue shape?", "no")]) == ("blue", None)
    assert derive([("is no circle present?", "no")]) == (None, "circle")
    assert derive([("is there not a blue shape?", "yes"), ("is a circle present?", "no")]) == (None, None)


def test_archive_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    write_tar(tmp_path / "downloads" / "easy-vqa-1.0.tar.gz", {"easy-vqa-1.0/README.md": b""})
    with pytest.raises(UserError, match=r"easy-vqa-1.0.tar.gz: it has no easy_vqa/data"):
        read_pictures()
