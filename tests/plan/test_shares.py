"""Ranks do equal work, and every sequence of a step is done once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm1.plan.shares import share_out


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.data())
def test_every_sequence_is_taken_once(ranks: int, micro: int, rounds: int, data: st.DataObject) -> None:
    size = ranks * micro * rounds
    images = np.array(data.draw(st.lists(st.integers(0, 16), min_size=size, max_size=size)))
    shares = share_out(images, ranks, micro)
    assert shares.shape == (rounds, ranks, micro)
    assert sorted(shares.flatten()) == list(range(size))
    # What the fullest rank has more than the emptiest is at most what one sequence has.
    load = images[shares].sum(2)
    assert (load.max(1) - load.min(1) <= images.max(initial=0)).all()


def test_equal_sequences_and_a_single_rank_keep_the_plans_order() -> None:
    shares = share_out(np.full(12, 3), 3, 2)
    for rank in range(3):
        own = np.arange(12)[rank::3]
        assert shares[:, rank].flatten().tolist() == own.tolist()
    images = np.random.default_rng(0).integers(0, 9, 12)
    assert share_out(images, 1, 4).flatten().tolist() == list(range(12))


@pytest.mark.parametrize("micro", [1, 2, 4, 8])
def test_sixty_four_ranks_with_the_papers_limits(micro: int) -> None:
    """The time of a step is that of the fullest rank in each of its micro-batches.

    A sequence of 4,096 tokens has up to 16 images. Captioned ones are full of images, interleaved ones have some, text
    has none (45/45/10).
    """
    generator = np.random.default_rng(1)
    fullest, before = [], []
    for _ in range(20):
        kinds = generator.choice(3, 512, p=[0.45, 0.45, 0.1])
        images = np.select([kinds == 0, kinds == 1], [generator.integers(14, 17, 512), generator.integers(2, 17, 512)])
        loads = images[share_out(images, 64, micro)].sum(2)
        fullest.append(loads.max(1).sum() / loads.mean(1).sum())
        plain = images.reshape(-1, micro, 64).sum(1)
        before.append(plain.max(1).sum() / plain.mean(1).sum())
    assert np.mean(fullest) <= 1.1
    assert np.mean(before) > 1.2
