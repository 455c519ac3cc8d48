"""The library's `labels`: places of pictures are no words to be learned, and nothing to learn is a loss of 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .builders import IMAGE, Sample, sample, tiny_model

ROWS = [sample("1ii3", 1), sample("1ii3", 2)]


def batch(rows: list[Sample]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row.ids for row in rows])
    pixels = torch.cat([row.images for row in rows])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def gradients(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("options", [{}, {"moe_num_experts": 4}])
@pytest.mark.parametrize("num_items", [None, 20, torch.tensor(20)])
def test_placeholders_in_labels_are_not_learned(options: dict[str, Any], num_items: Any) -> None:
    """TRL's collators mask padding only."""
    model, rows = tiny_model(**options), batch(ROWS)
    words = rows["input_ids"].masked_fill(rows["input_ids"] == IMAGE, -100)
    found = [model(**rows, labels=labels, num_items_in_batch=num_items).loss for labels in (rows["input_ids"], words)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(gradients(model, found[0]), gradients(model, found[1]))


@pytest.mark.parametrize("num_items", [None, 0, 7, torch.tensor(0)])
def test_nothing_to_learn_is_a_loss_of_0(num_items: Any) -> None:
    model, rows = tiny_model(), batch(ROWS)
    only_images = rows["input_ids"].masked_fill(rows["input_ids"] != IMAGE, -100)
    for labels in (torch.full_like(rows["input_ids"], -100), only_images):
        loss = model(**rows, labels=labels, num_items_in_batch=num_items).loss
        assert loss.item() == 0.0
        assert not gradients(model, loss).any()
