"""Micro-batches of a few shapes: the least padding, which changes nothing."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mm1.model.loss import NO_TARGET
from mm1.plan.loader import PlanDataset, build_loader
from mm1.plan.micro_batches import fixed_shapes
from mm1.plan.shapes import SIZES, choose_shapes
from mm1.processing.images import ImageError
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer
from tests.plan.test_loader import dataset_of


def added(counts: list[int], sizes: tuple[int, ...]) -> int:
    return sum(min(size for size in sizes if size >= count) - count for count in counts)


@given(st.lists(st.integers(1, 14), min_size=1, max_size=40))
def test_no_other_sizes_pad_less(counts: list[int]) -> None:
    shapes = choose_shapes(np.array(counts), 1, 64, 20)
    largest, values = max(counts), sorted(set(counts))
    assert len(shapes.images) <= SIZES
    assert shapes.images[-1] == 20
    others = (
        (*chosen, largest)
        for number in range(min(SIZES - 1, len(values)))
        for chosen in itertools.combinations(values[:-1], number)
    )
    assert added(counts, shapes.images) == min(added(counts, sizes) for sizes in others)
    assert shapes.padded_images(0) == 0


@pytest.fixture
def dataset(data: Path, recipe_file: Path, tmp_path: Path) -> PlanDataset:
    tokenizer = train_tokenizer(["a red blue green yellow square Colour:"], 300)
    return dataset_of(recipe_file, tmp_path, build_processor(tokenizer, 16, 4))


def padded(dataset: PlanDataset, micro: int) -> PlanDataset:
    shapes = fixed_shapes(dataset.plan, micro)
    return PlanDataset(dataset.plan, dataset.splits, dataset.processor, dataset.document_mask, shapes)


def test_padding_adds_images_that_go_nowhere_and_targets_that_do_not_count(dataset: PlanDataset) -> None:
    shapes = set()
    for plain, batch in zip(build_loader(dataset, 0, 2), build_loader(padded(dataset, 2), 0, 2), strict=True):
        images, targets, tokens = plain["images"], plain["count"], len(plain["image_positions"])
        assert (batch["images"], batch["count"], batch["tokens"]) == (images, targets, plain["tokens"])
        for name in ("input_ids", "position_ids"):
            assert torch.equal(batch[name], plain[name])
        assert torch.equal(batch["pixel_values"][:images], plain["pixel_values"])
        assert not batch["pixel_values"][images:].any()
        assert torch.equal(batch["image_positions"][:tokens], plain["image_positions"])
        assert (batch["image_positions"][tokens:] == batch["input_ids"].numel()).all()
        assert len(batch["image_positions"]) == len(batch["pixel_values"]) * dataset.processor.tokens_per_image
        for name in ("target_positions", "target_ids", "target_kinds"):
            assert torch.equal(batch[name][:targets], plain[name])
        assert (batch["target_ids"][targets:] == NO_TARGET).all()
        shapes.add(len(batch["pixel_values"]))
    assert len(shapes) <= SIZES + 1


def test_an_unreadable_picture_leaves_the_shape_as_planned(
    dataset: PlanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = build_loader(padded(dataset, 2), 0, 2)
    planned = [len(batch["pixel_values"]) for batch in loader]
    decode, calls = dataset.processor.pixel_values, itertools.count()

    def sometimes(images):
        if next(calls) % 3 == 0:
            raise ImageError("it is broken")
        return decode(images)

    monkeypatch.setattr(dataset.processor, "pixel_values", sometimes)
    broken = list(loader)
    assert [len(batch["pixel_values"]) for batch in broken] == planned
    assert any(batch["images"] < size for batch, size in zip(broken, planned, strict=True))
    assert any(batch["bad_images"] for batch in broken)


def test_micro_batches_of_another_size_are_not_padded(dataset: PlanDataset) -> None:
    other = next(iter(build_loader(padded(dataset, 4), 0, 2)))
    assert len(other["pixel_values"]) == other["images"]
    assert len(other["target_ids"]) == other["count"]
