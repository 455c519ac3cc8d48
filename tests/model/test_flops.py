"""FLOPs of a training step against torch's own counter."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mm1.model import MM1ForConditionalGeneration
from mm1.model.borders import document_lengths
from mm1.model.sizes import flops_per_step, unit_flops

from .builders import pack, sample, tiny_config

PARTS = {"vision": "vision_tower", "connector": "connector", "language_model": "language_model"}


def build(connector: str, experts: int = 0) -> MM1ForConditionalGeneration:
    """A model whose operations torch counts in full: it passes over fused attention on CPUs and grouped experts."""
    model = MM1ForConditionalGeneration(
        tiny_config(
            connector=connector,
            image_seq_length=16 if connector == "mlp" else 4,
            connector_num_heads=2,
            moe_num_experts=experts,
            moe_implementation="eager",
        )
    )
    model.set_attn_implementation("eager")
    return model.train()


def convolution_backward(grad, x, weight, *args, out_shape=None, **kwargs):
    """FLOPs of a convolution's gradients: as many as its own for its input, and for its weight.

    torch's counter takes the weight of a depth-wise convolution to have as many input channels as the plane has.
    """
    mask = args[-1]
    return 2 * grad[0] * math.prod(grad[2:]) * math.prod(weight) * (mask[0] + mask[1])


def count(model: MM1ForConditionalGeneration, backward: bool = True) -> tuple[int, dict[str, Any]]:
    """Return a step's FLOPs as torch counts them, and what the step processed."""
    tokens = model.config.image_seq_length
    batch = pack([[sample("i9i9i9i5i9", 0, tokens)], [sample("i9i9i9i9i5", 1, tokens)]])
    mapping = {torch.ops.aten.convolution_backward: convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        loss = model(**batch).loss
        if backward:
            loss.backward()
    rows, length = batch["input_ids"].shape
    processed = {
        "tokens": rows * length,
        "pairs": rows * length**2,  # eager attention computes the square
        "target_tokens": len(batch["target_ids"]),
        "images": len(batch["pixel_values"]),
    }
    return counter.get_total_flops(), processed


@pytest.mark.parametrize("experts", [0, 4], ids=["dense", "sparse"])
@pytest.mark.parametrize("connector", ["average_pool", "attention_pool", "c_abstractor", "mlp"])
def test_a_step_is_what_torch_counts_within_two_percent(connector, experts):
    model = build(connector, experts)
    total, processed = count(model)
    assert sum(flops_per_step(unit_flops(model), **processed).values()) == pytest.approx(total, rel=0.02)


@pytest.mark.parametrize("frozen", [["vision"], ["vision", "connector"], ["connector"], ["language_model"]])
def test_frozen_parts_are_what_torch_counts(frozen):
    model = build("c_abstractor")
    for part in frozen:
        getattr(model.model, PARTS[part]).requires_grad_(False)
    if "language_model" in frozen:
        model.lm_head.requires_grad_(False)
    total, processed = count(model)
    ours = flops_per_step(unit_flops(model), frozen=frozen, **processed)
    assert sum(ours.values()) == pytest.approx(total, rel=0.02)


def test_layers_computed_again_are_at_most_five_percent_more_than_torch_counts():
    model = build("c_abstractor")
    model.gradient_checkpointing_enable()
    total, processed = count(model)
    ours = sum(flops_per_step(unit_flops(model), recompute=True, **processed).values())
    assert total < ours < 1.05 * total


def test_a_forward_pass_is_what_torch_counts():
    model = build("average_pool")
    total, n = count(model, backward=False)
    units = unit_flops(model)
    decoder = n["tokens"] * units.token + n["pairs"] * units.pair + n["target_tokens"] * units.target_token
    assert n["images"] * (units.vision + units.connector) + decoder == pytest.approx(total, rel=0.001)


def test_pairs_of_packed_rows_are_those_of_their_documents():
    batch = pack([[sample("i9", 0), sample("5", 1)], [sample("i9i5", 2)]])
    positions = batch["position_ids"]
    # Padding is one document to `document_lengths`; its tokens are documents of their own in the sum.
    padding = int((batch["input_ids"] == 0).sum())
    lengths = [n for n in document_lengths(positions) if n != padding]
    assert int((positions + 1).sum()) == sum(n * (n + 1) // 2 for n in lengths) + padding


def test_counting_leaves_the_model_as_it_was():
    model = build("average_pool")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.set_attn_implementation({"text_config": "sdpa", "vision_config": "sdpa"})
    unit_flops(model)
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
