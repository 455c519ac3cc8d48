"""bfloat16, by autocast and as the weights' type, stays near float32 and gives finite gradients."""

from __future__ import annotations

import pytest
import torch

from .builders import pack, sample, tiny_config, tiny_model

VARIANTS = {
    "average_pool": {},
    "attention_pool": {"connector": "attention_pool"},
    "c_abstractor": {"connector": "c_abstractor"},
    "sparse": {"moe_num_experts": 4, "moe_every": 2},
}


def gentle(**changes):
    """The tiny model with ordinary weights: with large ones bfloat16 goes far astray."""
    text = tiny_config().text_config
    text.initializer_range = 0.02
    return tiny_model(text_config=text, **changes)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_near_float32(changes, autocast):
    batch = pack([[sample("i5", 1), sample("9", 2)], [sample("2i3", 3)]])
    model = gentle(**changes)
    wanted = model(**batch).loss
    model = model if autocast else model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(**batch).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, wanted, atol=0.02, rtol=0)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 50
    assert all(gradient.isfinite().all() for gradient in gradients)
