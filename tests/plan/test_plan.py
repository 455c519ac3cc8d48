from __future__ import annotations

import io
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from mm1.document import Kind
from mm1.errors import UserError
from mm1.look.plan import plan_table
from mm1.plan.index import IMAGE
from mm1.plan.lengths import Index
from mm1.plan.mixture import Alternation, Mixture
from mm1.plan.packing import cut_documents
from mm1.plan.plan import Plan, write_plan
from mm1.plan.sources import Source
from mm1.recipe import DataRecipe


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(sum), st.integers(1, 400))
def test_every_prefix_has_its_shares_to_less_than_one(weights, count) -> None:
    chosen, _ = Alternation(weights, count)(np.arange(count))
    shares = np.array(weights) / sum(weights)
    counts = np.cumsum(chosen[:, None] == np.arange(len(weights)), axis=0)
    due = np.arange(1, count + 1)[:, None] * shares
    assert np.abs(counts - due).max() < 1


def source(name: str, kind: Kind, lengths: list[list[int]], weight: float = 1.0) -> Source:
    parts = np.array([x for p in lengths for x in p], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in lengths])]).astype(np.int64)
    return Source(name, kind, weight, name + "-content", Index(parts, offsets, parts != IMAGE))


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
    settings_: dict[str, Any] = {"tokenizer_fingerprint": "t", "tokens_per_image": 5, "batch_size": 4, "steps": 50}
    return write_plan(directory, sources, data or recipe(), **(settings_ | {"seed": 0} | changes))


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
    others: list[dict[str, Any]] = [{"seed": 1}, {"tokenizer_fingerprint": "u"}, {"tokens_per_image": 4}, {"steps": 51}]
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


def test_any_stretch_of_the_mixture_is_that_of_the_whole() -> None:
    sources: list[tuple[Kind, float]] = [("caption", 3.0), ("text", 1.0), ("caption", 0.28), ("interleaved", 1.0)]
    mixture = Mixture({"caption": 0.45, "interleaved": 0.45, "text": 0.1}, sources, 10_000)
    whole = mixture(0, 10_000)
    assert np.array_equal(np.concatenate([mixture(a, a + 625) for a in range(0, 10_000, 625)]), whole)
    captions = whole[np.isin(whole, (0, 2))]
    due = np.arange(1, len(captions) + 1) * 3 / 3.28
    assert np.abs(np.cumsum(captions == 0) - due).max() < 1


def test_weights_without_a_common_period_hold_to_a_millionth() -> None:
    weights = [0.1234, 0.4567, 0.3331, 0.0868]
    count = 1_500_000
    chosen, _ = Alternation([w + 1 / 7919 for w in weights], count)(np.arange(count))
    share = np.bincount(chosen) / count
    assert np.abs(share - np.array([w + 1 / 7919 for w in weights]) / (1 + 4 / 7919)).max() < 1e-5


def test_the_chunks_in_which_it_is_written_make_no_difference(tmp_path, monkeypatch) -> None:
    whole = plan(tmp_path / "1")
    monkeypatch.setattr("mm1.plan.plan._SEQUENCES_AT_ONCE", 7)
    chunked = plan(tmp_path / "2")
    for name in ("source", "first_piece", "document", "first", "length", "images"):
        assert np.array_equal(getattr(whole, name), getattr(chunked, name))
    assert whole.info == chunked.info


def test_blocks_hold_every_document_once_an_epoch(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mm1.plan.streams.BLOCK", 7)
    one = recipe(mixture={"caption": {"weight": 1, "sources": [{"corpus": "a/train"}]}})
    made = plan(tmp_path / "plan", sources=SOURCES[:1], data=one)
    whole = int(made.info["sources"]["a/train"]["epochs"])
    assert whole >= 2
    for epoch in range(whole):
        assert sorted(made.document[epoch * 30 : (epoch + 1) * 30]) == list(range(30))


def test_the_figures_are_those_of_the_pieces(tmp_path) -> None:
    made = plan(tmp_path / "plan")
    info = made.info
    assert info["tokens"] == made.length.sum() == sum(kind["tokens"] for kind in info["kinds"].values())
    assert info["images"] == made.images.sum()
    for number, source in enumerate(SOURCES):
        entry = info["sources"][source.name]
        sequences = np.flatnonzero(made.source == number)
        rows = [row for sequence in sequences for row in made.pieces(sequence)]
        cut = cut_documents(source.index, 5, 40, 3)
        target = {(d, f): n for d, f, n in zip(cut.document, cut.first, cut.target, strict=True)}
        assert entry["sequences"] == len(sequences)
        assert entry["tokens"] == made.length[rows].sum()
        assert entry["target_tokens"] == sum(target[made.document[row], made.first[row]] for row in rows)
        assert entry["epochs"] == pytest.approx((made.first[rows] == 0).sum() / len(source.index), abs=1e-3)
        used = made.length[rows].sum() / 40, made.images[rows].sum() / 3
        assert entry["fill"]["binding"] == pytest.approx(max(used) / len(sequences))


def test_a_source_repeated_too_often_is_warned_about(tmp_path) -> None:
    warnings = plan(tmp_path / "plan", steps=5).info["warnings"]
    assert warnings == []
    (warning,) = (w for w in plan(tmp_path / "plan", steps=200).info["warnings"] if w.startswith("a/train"))
    assert "2305.16264" in warning


def test_a_kind_may_have_its_own_limit_of_images(tmp_path) -> None:
    content = recipe().model_dump()
    content["mixture"]["caption"]["images_per_sequence"] = 2
    changed = plan(tmp_path / "2", data=DataRecipe.model_validate(content))
    assert changed.hash != plan(tmp_path / "1").hash
    most = max(changed.images[list(changed.pieces(i))].sum() for i in range(len(changed)))
    assert most == changed.info["kinds"]["caption"]["images_per_sequence"] == 2


def test_a_fixed_plan_is_kept_or_the_change_is_named(tmp_path) -> None:
    first = plan(tmp_path / "plan")
    assert plan(tmp_path / "plan", fixed=first.hash).hash == first.hash
    changed = [source("a/train", "caption", [[IMAGE, 3]], 3), *SOURCES[1:]]
    changed[0] = Source("a/train", "caption", 3, "other", changed[0].index)
    with pytest.raises(UserError, match="since the corpus a/train and the tokenizer changed: .*--to"):
        plan(tmp_path / "plan", sources=changed, tokenizer_fingerprint="u", fixed=first.hash)
    assert Plan(tmp_path / "plan").hash == first.hash


def test_a_fixed_plan_that_was_removed_is_made_again_or_refused(tmp_path) -> None:
    first = plan(tmp_path / "plan")
    pieces = (tmp_path / "plan" / "pieces.npy").read_bytes()
    shutil.rmtree(tmp_path / "plan")
    with pytest.raises(UserError, match="since a corpus, the tokenizer or the recipe changed: .*--to"):
        plan(tmp_path / "plan", seed=5, fixed=first.hash)
    assert not (tmp_path / "plan").exists()
    plan(tmp_path / "plan", fixed=first.hash)
    assert (tmp_path / "plan" / "pieces.npy").read_bytes() == pieces


@pytest.mark.parametrize("name", ["plan.json", "sequences.npy", "pieces.npy"])
@pytest.mark.parametrize("share", [None, 0.0, 0.5], ids=["missing", "empty", "cut"])
def test_a_damaged_plan_is_named_and_is_made_again_once_it_is_removed(tmp_path, name, share) -> None:
    directory, file = tmp_path / "plan", tmp_path / "plan" / name
    whole = file_bytes(plan(directory).directory)
    if share is None:
        file.unlink()
    else:
        file.write_bytes(whole[name][: int(share * len(whole[name]))])
    with pytest.raises(UserError, match=rf"{name}: the file is missing or damaged .*: remove the folder {directory},"):
        Plan(directory)
    if (name, share) != ("plan.json", None):  # a plan without it is made again anyway
        with pytest.raises(UserError, match=rf"{name}: the file is missing or damaged"):
            plan(directory)
        shutil.rmtree(directory)
    assert file_bytes(plan(directory).directory) == whole


def test_a_plan_whose_arrays_are_of_another_one_is_refused(tmp_path) -> None:
    plan(tmp_path / "plan")
    plan(tmp_path / "other", steps=3)
    shutil.copy(tmp_path / "other" / "sequences.npy", tmp_path / "plan" / "sequences.npy")
    with pytest.raises(UserError, match=r"sequences.npy: the file is missing or damaged \(\d+ of \d+ sequences\)"):
        Plan(tmp_path / "plan")


def file_bytes(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_the_table_names_every_source_and_total(tmp_path) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    info = plan(tmp_path / "plan", steps=200).info
    console.print(plan_table(info))
    text = console.export_text()
    for name in ("a/train", "b/train", "c/train", "caption", "text"):
        assert name in text
    assert "200 steps of 4 sequences" in text
    assert "epochs repeated tokens are worth less" in text


def test_a_plan_travels_between_processes_as_a_path(tmp_path) -> None:
    made = plan(tmp_path / "plan")
    sent = pickle.dumps(made)
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent).document, made.document)


parts = st.lists(st.one_of(st.just(IMAGE), st.integers(0, 60)), max_size=10)


@given(st.lists(parts, min_size=1, max_size=25), st.integers(1, 30), st.integers(0, 5), st.integers(3, 9))
@settings(max_examples=40)
def test_no_token_is_lost_or_repeated_within_an_epoch(documents, steps, seed, block) -> None:
    """Documents of any shape, cut where they must be, in blocks of any size."""
    one = recipe(mixture={"caption": {"weight": 1, "sources": [{"corpus": "a/train"}]}})
    given_source = source("a/train", "caption", documents)
    cut = cut_documents(given_source.index, 5, 40, 3)
    expected = sorted(zip(cut.document, cut.first, cut.length, strict=True))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("mm1.plan.streams.BLOCK", block)
        made = plan(Path(folder) / "plan", sources=[given_source], data=one, steps=steps, seed=seed)
        placed = list(zip(made.document, made.first, made.length, strict=True))
        for start in range(0, len(placed) - len(expected) + 1, len(expected)):
            assert sorted(placed[start : start + len(expected)]) == expected
        rest = placed[len(placed) - len(placed) % len(expected) :]
        assert len(set(rest)) == len(rest)
        assert set(rest) <= set(expected)
