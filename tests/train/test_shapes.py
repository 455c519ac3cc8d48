"""Padding micro-batches to a few shapes changes no gradient, no loss and no count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mm1.model import MM1ForConditionalGeneration
from mm1.plan.loader import PlanDataset, build_loader
from mm1.plan.shapes import Shapes
from mm1.processing.processor import MM1Processor
from mm1.recipe import load_recipe
from mm1.train import pretrain as module
from mm1.train.objective import language_model_loss
from mm1.train.prepare import open_sequences
from mm1.train.pretrain import pretrain
from tests.train.test_telemetry import lines_of


def unpadded(*arguments: Any) -> None:
    """Stand for `fixed_shapes`."""


def one_shape(*arguments: Any) -> Shapes:
    """Stand for `fixed_shapes`: every micro-batch has as many pictures as it may have."""
    return Shapes(2, (8,), 40)


def test_a_padded_training_is_the_unpadded_one(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(recipe_file), ["train.z_loss=0.01", "train.micro_batch_size=2"])
    monkeypatch.setattr(module, "fixed_shapes", one_shape)
    pretrain(recipe, tmp_path / "padded")
    monkeypatch.setattr(module, "fixed_shapes", unpadded)
    pretrain(recipe, tmp_path / "unpadded")
    for line, other in zip(lines_of(tmp_path / "padded"), lines_of(tmp_path / "unpadded"), strict=True):
        assert line.keys() == other.keys()
        for key in ("tokens", "images", "bad_images", "step"):
            assert line[key] == other[key], key
        for key in ("loss", "grad_norm", "grad_norm/vision"):
            assert line.get(key) == pytest.approx(other.get(key), rel=1e-4), key


def test_gradients_are_those_of_the_unpadded_micro_batch(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    pretrain(load_recipe(str(recipe_file), ["train.steps=3"]), tmp_path / "run")
    plain = open_sequences(tmp_path / "run")
    padded = PlanDataset(plain.plan, plain.splits, plain.processor, plain.document_mask, one_shape())
    model = MM1ForConditionalGeneration.from_pretrained(tmp_path / "run" / "model").double()
    processor = MM1Processor.from_pretrained(tmp_path / "run" / "model")
    with_images = 0
    for batches in zip(build_loader(plain, 0, 2), build_loader(padded, 0, 2), strict=True):
        found = []
        with_images += batches[0]["images"] > 0
        assert len(batches[1]["pixel_values"]) == (8 if batches[0]["images"] else 0)
        assert len(batches[1]["target_ids"]) % 40 == 0
        for batch in batches:
            model.zero_grad()
            losses = language_model_loss(model, processor, batch, z_loss=0.1)
            losses.total.backward()
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            found.append((losses, gradients))
        (one, ours), (other, theirs) = found
        assert torch.equal(one.counts_by_kind, other.counts_by_kind)
        assert torch.allclose(one.by_kind, other.by_kind)
        assert len(ours) == len(theirs) > 10
        for gradient, same in zip(ours, theirs, strict=True):
            assert torch.allclose(gradient, same, rtol=1e-5, atol=1e-7)
    assert with_images > 2
