"""Scores of encoders: recall against a plain count, chance against random orders, classes and probes on tiny runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Text
from mm1.encoder.evaluate import result_table, score_encoder
from mm1.encoder.pretrain import pretrain_encoder
from mm1.encoder.retrieval import chance_recall, distinct_pairs, ranks_of_best
from mm1.errors import UserError
from mm1.recipe import EncoderRecipe, load_recipe
from tests.conftest import COLOURS, png


def test_alike_captions_and_pictures_are_one_and_right_for_each_other() -> None:
    pairs = distinct_pairs([b"x", b"y", b"x", b"z"], ["red", "red", "apple", "blue"])
    assert pairs.captions == ["apple", "blue", "red"]
    assert [[b"x", b"y", b"x", b"z"][i] for i in pairs.pictures] == [b"x", b"y", b"z"]
    assert pairs.right.tolist() == [[True, False, True], [False, False, True], [False, True, False]]


@given(data=st.data(), queries=st.integers(1, 5), candidates=st.integers(1, 6))
@settings(max_examples=50)
def test_ranks_are_those_of_a_sorted_list(data: st.DataObject, queries: int, candidates: int) -> None:
    numbers = st.lists(st.integers(0, 4), min_size=candidates, max_size=candidates)
    similarities = [data.draw(numbers) for _ in range(queries)]
    right = [data.draw(st.sets(st.integers(0, candidates - 1), min_size=1)) for _ in range(queries)]
    mask = torch.tensor([[j in good for j in range(candidates)] for good in right])
    ranks = ranks_of_best(torch.tensor(similarities, dtype=torch.float32), mask)
    for row, good, rank in zip(similarities, right, ranks, strict=True):
        # The most similar first; of equals the wrong ones.
        order = sorted(range(candidates), key=lambda j: (-row[j], j in good))
        assert rank == 1 + next(place for place, j in enumerate(order) if j in good)


def test_chance_is_what_random_orders_reach() -> None:
    right, candidates, k = np.array([1, 1, 3, 6]), 12, 4
    random = np.random.default_rng(0)
    reached = [np.mean([(random.permutation(candidates)[:k] < r).any() for r in right]) for _ in range(4000)]
    assert chance_recall(right, candidates, k) == pytest.approx(np.mean(reached), abs=0.02)
    assert chance_recall(right, candidates, 12) == 1.0
    assert chance_recall(np.array([1]), 100_000, 10) == pytest.approx(1e-4)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of coloured squares with their colour as the label; some lack it."""
    directory = tmp_path_factory.mktemp("squares")
    documents = [
        Document(
            str(i),
            "caption",
            (Image(png(colour, 12 + i)), Text(f" a {colour} square")),
            {"color": colour} if i < 16 else {},
        )
        for i, colour in enumerate(list(COLOURS) * 5)
    ]
    write_corpus(directory / "squares", {"train": documents, "test": documents}, licence="none", sources=["made up"])
    return directory


@pytest.fixture
def on_squares(squares: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides that train and score on them."""
    monkeypatch.setenv("MM1_DATA", str(squares))
    return [
        "data.mixture.caption.sources=[{corpus: squares/train}]",
        "evaluate.retrieval=[squares/test]",
        "evaluate.probe=[{train: squares/train, test: squares/test, label: color}]",
        "train.learning_rate=0.01",
        "train.steps=60",
        "train.batch_size=16",
    ]


ZERO_SHOT = "evaluate.zero_shot=[{corpus: squares/test, label: color, templates: ['a {} square', 'the {} square']}]"


def test_a_trained_clip_finds_names_and_separates_colours(
    encoder_recipe: Path, on_squares: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    run = tmp_path / "run"
    pretrain_encoder(load_recipe(str(encoder_recipe), [*on_squares, ZERO_SHOT], schema=EncoderRecipe), run)
    results = score_encoder(run)
    assert json.loads((run / "scores" / "encoder.json").read_text()) == json.loads(json.dumps(results))
    by_measure = {(line["task"], line["measure"]): line for line in results}
    found = by_measure["retrieval", "image to text R@1"]
    assert found["items"] == 20
    assert found["chance"] == pytest.approx(1 / 4)
    assert found["score"] == 1.0
    back = by_measure["retrieval", "text to image R@1"]
    assert back["items"] == 4
    assert back["chance"] == pytest.approx(5 / 20)
    assert back["score"] == 1.0
    named = by_measure["zero-shot", "color"]
    assert (named["items"], named["score"], named["chance"]) == (16, 1.0, 0.25)
    assert named["left_out"]["no 'color'"]["count"] == 4
    assert named["protocol"]["classes"] == ["blue", "green", "red", "yellow"]
    probed = by_measure["linear probe", "color"]
    assert probed["score"] == 1.0
    assert result_table(results).row_count == 6 + 1 + 1 + 3
    limited = score_encoder(run, ["evaluate.limit=6"])
    assert limited[0]["items"] == 6


def test_classes_may_have_names_of_their_own(encoder_recipe: Path, on_squares: list[str], tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "names.json"
    pretrain_encoder(load_recipe(str(encoder_recipe), on_squares[:1], schema=EncoderRecipe), run)
    task = f"evaluate.zero_shot=[{{corpus: squares/test, label: color, names: {file}}}]"
    with pytest.raises(UserError, match=r"names\.json: the names of classes can't be read"):
        score_encoder(run, [task])
    file.write_text(json.dumps({"blue": "sky", "red": "fire", "green": "grass"}))
    with pytest.raises(UserError, match=r"names\.json: it has no name for 'yellow'"):
        score_encoder(run, [task])
    file.write_text(json.dumps({"blue": "sky", "red": "fire", "green": "grass", "yellow": "sun"}))
    (line,) = score_encoder(run, [task])
    assert line["protocol"]["classes"] == ["sky", "grass", "fire", "sun"]


def test_an_aim_run_has_a_probe_and_no_words(encoder_recipe: Path, on_squares: list[str], tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    settings = [*on_squares, "objective.kind=aim", "objective.head_depth=1", "train.steps=3"]
    run = tmp_path / "run"
    pretrain_encoder(load_recipe(str(encoder_recipe), settings, schema=EncoderRecipe), run)
    (probed,) = score_encoder(run, ["evaluate.retrieval=[]"])
    assert probed["task"] == "linear probe"
    with pytest.raises(UserError, match=r"no text tower, so only evaluate\.probe can score it"):
        score_encoder(run)


def test_mistakes_are_named(encoder_recipe: Path, on_squares: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        score_encoder(tmp_path)
    run = tmp_path / "run"
    pretrain_encoder(load_recipe(str(encoder_recipe), ["train.steps=3", on_squares[0]], schema=EncoderRecipe), run)
    with pytest.raises(UserError, match="the recipe names no corpus to score the encoder on"):
        score_encoder(run)
    with pytest.raises(UserError, match="squares/test: the split has no document to score the encoder on .*no 'shape'"):
        score_encoder(run, ["evaluate.zero_shot=[{corpus: squares/test, label: shape}]"])
    with pytest.raises(UserError, match=r"templates.*\{\}"):
        score_encoder(run, ["evaluate.zero_shot=[{corpus: squares/test, label: color, templates: [a square]}]"])
