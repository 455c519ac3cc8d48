from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.errors import UserError
from mm1.plan.index import IMAGE
from mm1.plan.lengths import Index
from mm1.plan.packing import cut_documents, pack

TOKENS_PER_IMAGE = 7

documents = st.lists(st.lists(st.one_of(st.just(IMAGE), st.integers(0, 90)), max_size=12), min_size=1, max_size=40)


def index_of(parts: list[list[int]]) -> Index:
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
    lengths = np.array([x for p in parts for x in p], dtype=np.int32)
    return Index(lengths, offsets, lengths != IMAGE)


def tokens_of(parts: list[int]) -> np.ndarray:
    """One number per token of an encoded document: which picture it belongs to, or -1."""
    tokens = [-1]
    for i, part in enumerate(parts):
        tokens += [i] * TOKENS_PER_IMAGE if part == IMAGE else [-1] * part
    return np.array([*tokens, -1])


@given(documents, st.integers(TOKENS_PER_IMAGE, 60), st.integers(1, 4))
@settings(max_examples=150)
def test_every_token_is_in_one_piece_and_no_picture_is_cut(parts, max_tokens, max_images) -> None:
    pieces = cut_documents(index_of(parts), TOKENS_PER_IMAGE, max_tokens, max_images)
    for number, document in enumerate(parts):
        tokens = tokens_of(document)
        seen: list[int] = []
        for row in np.flatnonzero(pieces.document == number):
            first, length = pieces.first[row], pieces.length[row]
            inside = tokens[first : first + length]
            seen += range(first, first + length)
            pictures = np.unique(inside[inside >= 0])
            assert length <= max_tokens
            assert len(pictures) == pieces.images[row] <= max_images
            assert all((inside == picture).sum() == TOKENS_PER_IMAGE for picture in pictures)
        assert seen == list(range(len(tokens)))


@given(documents, st.integers(TOKENS_PER_IMAGE, 60), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=150)
def test_packing_places_every_piece_once_within_both_limits(parts, max_tokens, max_images, seed) -> None:
    pieces = cut_documents(index_of(parts), TOKENS_PER_IMAGE, max_tokens, max_images)
    order = np.random.default_rng(seed).permutation(len(pieces))
    sequences = pack(pieces, order, max_tokens, max_images)
    assert sorted(np.concatenate(sequences)) == list(range(len(pieces)))
    for sequence in sequences:
        assert pieces.length[sequence].sum() <= max_tokens
        assert pieces.images[sequence].sum() <= max_images


def test_whole_documents_stay_whole() -> None:
    pieces = cut_documents(index_of([[IMAGE, 5], [40], [IMAGE, IMAGE, 3]]), TOKENS_PER_IMAGE, 60, 4)
    assert pieces.first.tolist() == [0, 0, 0]
    assert pieces.length.tolist() == [14, 42, 19]


@pytest.mark.parametrize(
    ("mean", "spread", "images", "fill"),
    [
        (5.5, 1.0, 0, 0.99),  # text: tokens bind
        (5.5, 1.0, 1, 0.99),  # a long text to each picture: tokens bind
        (2.5, 0.5, 1, 0.99),  # captions: images bind
        (4.2, 1.0, 1, 0.94),  # both bind, and long texts keep pictures out: 0.99 can't be had
    ],
)
def test_fill_of_whichever_limit_binds(mean: float, spread: float, images: int, fill: float) -> None:
    """0.99, on long-tailed distributions of lengths (the figure that the design sets)."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(mean, spread, 10_000), 3, 3900).astype(int)
    pieces = cut_documents(index_of([[IMAGE] * images + [int(n)] for n in lengths]), 144, 4096, 16)
    sequences = pack(pieces, random.permutation(len(pieces)), 4096, 16)
    by_tokens = pieces.length.sum() / (4096 * len(sequences))
    by_images = pieces.images.sum() / (16 * len(sequences))
    assert max(by_tokens, by_images) >= fill


def test_a_picture_longer_than_a_sequence_is_refused() -> None:
    with pytest.raises(UserError, match=r"sequence_length 5 .* one picture \(7 tokens\)"):
        cut_documents(index_of([[IMAGE]]), 7, 5, 1)
