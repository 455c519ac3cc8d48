from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.data.index import IMAGE, Index
from mm1.data.plan import Source, alternate, write_plan
from mm1.errors import UserError
from mm1.recipe import DataRecipe


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(sum), st.integers(1, 400))
@settings(deadline=None)
def test_every_prefix_has_its_shares_to_less_than_one(weights, count) -> None:
    chosen = alternate(weights, count)
    shares = np.array(weights) / sum(weights)
    counts = np.cumsum(chosen[:, None] == np.arange(len(weights)), axis=0)
    due = np.arange(1, count + 1)[:, None] * shares
    assert np.abs(counts - due).max() < 1


def source(name: str, kind: str, lengths: list[list[int]], weight: float = 1.0) -> Source:
    parts = np.array([x for p in lengths for x in p], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in lengths])]).astype(np.int64)
    return Source(name, kind, weight, name + "-content", Index(parts, offsets))  # type: ignore[arg-type]


def recipe(**changes) -> DataRecipe:
    content = {
        "sequence_length": 40,
        "images_per_sequence": 3,
        "mixture": {
            "caption": {"weight": 0.45, "sources": [{"corpus": "a/train", "weight": 3}, {"corpus": "b/train"}]},
            "text": {"weight": 0.1, "sources": [{"corpus": "c/train"}]},
        },
    }
    return DataRecipe.model_validate(content | changes)


SOURCES = [
    source("a/train", "caption", [[IMAGE, n % 7] for n in range(30)], 3),
    source("b/train", "caption", [[IMAGE, 20 + n % 5] for n in range(10)]),
    source("c/train", "text", [[n] for n in range(1, 100, 5)]),
]


def plan(directory, sources=SOURCES, data=None, **changes):
    settings_ = {"tokenizer_fingerprint": "t", "tokens_per_image": 5, "batch_size": 4, "steps": 50, "seed": 0} | changes
    return write_plan(directory, sources, data or recipe(), **settings_)


def test_kinds_and_sources_have_their_weights(tmp_path) -> None:
    info = plan(tmp_path / "plan").info
    kinds, sources = info["kinds"], info["sources"]
    assert abs(kinds["caption"]["sequences"] - 200 * 0.45 / 0.55) < 1
    assert abs(sources["a/train"]["sequences"] - kinds["caption"]["sequences"] * 0.75) < 1
    assert sum(kind["sequences"] for kind in kinds.values()) == info["sequences"] == 200


def test_each_epoch_of_a_source_holds_every_document_once(tmp_path) -> None:
    one = recipe(mixture={"caption": {"weight": 1, "sources": [{"corpus": "a/train"}]}})
    made = plan(tmp_path / "plan", sources=SOURCES[:1], data=one)
    documents = [int(d) for i in range(len(made)) for d in made.document[list(made.pieces(i))]]
    epochs = made.info["sources"]["a/train"]["epochs"]
    whole = int(epochs)
    assert whole >= 2
    for epoch in range(whole):
        assert sorted(documents[epoch * 30 : (epoch + 1) * 30]) == list(range(30))
    assert documents[:30] != documents[30:60]


def test_sequences_keep_within_the_limits(tmp_path) -> None:
    made = plan(tmp_path / "plan")
    for i in range(len(made)):
        rows = list(made.pieces(i))
        assert 0 < made.length[rows].sum() <= 40
        assert made.images[rows].sum() <= 3


def test_the_same_inputs_give_the_same_plan_and_others_another(tmp_path) -> None:
    first, second = plan(tmp_path / "1"), plan(tmp_path / "2")
    for name in ("source", "first_piece", "document", "first", "length", "images"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert first.hash == second.hash
    others = [{"seed": 1}, {"tokenizer_fingerprint": "u"}, {"tokens_per_image": 4}, {"steps": 51}]
    assert len({plan(tmp_path / str(i), **o).hash for i, o in enumerate(others)} | {first.hash}) == 5


def test_a_plan_that_is_there_is_kept(tmp_path) -> None:
    plan(tmp_path / "plan")
    before = (tmp_path / "plan" / "plan.json").stat().st_mtime_ns
    plan(tmp_path / "plan")
    assert (tmp_path / "plan" / "plan.json").stat().st_mtime_ns == before
    plan(tmp_path / "plan", seed=3)
    assert (tmp_path / "plan" / "plan.json").stat().st_mtime_ns != before


def test_an_empty_source_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match="a/train: the split has no documents"):
        plan(tmp_path / "plan", sources=[source("a/train", "caption", []), *SOURCES[1:]])
    assert not (tmp_path / "plan").exists()
