"""A document gives the same logits, loss and gradients alone and inside any packed batch."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from mm1.model import MM1ForConditionalGeneration

from .builders import pack, sample, tiny_model

DOCUMENTS = [sample("i5", 1), sample("3i2i4", 2), sample("9", 3), sample("ii1", 4)]
LAYOUTS = [
    [[DOCUMENTS[0], DOCUMENTS[1]], [DOCUMENTS[2], DOCUMENTS[3]]],
    [[DOCUMENTS[3], DOCUMENTS[2], DOCUMENTS[1], DOCUMENTS[0]]],
    [[DOCUMENTS[2]], [DOCUMENTS[1], DOCUMENTS[0], DOCUMENTS[3]]],
]


def logits_by_document(model: MM1ForConditionalGeneration, rows: list) -> dict[int, torch.Tensor]:
    logits = model(**pack(rows)).logits
    order = [s for row in rows for s in row]
    return {id(s): part for s, part in zip(order, logits.split([sum(s.target) for s in order]), strict=True)}


@pytest.mark.parametrize("attention", ["sdpa", "eager", "sdpa_packed"])
@pytest.mark.parametrize("rows", LAYOUTS)
@pytest.mark.parametrize("training", [False, True])
def test_logits_equal_alone_and_packed(attention, rows, training):
    model = tiny_model().train(training)
    model.set_attn_implementation(attention)
    packed = logits_by_document(model, rows)
    for document in DOCUMENTS:
        alone = logits_by_document(model, [[document]])[id(document)]
        torch.testing.assert_close(packed[id(document)], alone, atol=2e-5, rtol=1e-5)


def test_flex_attention_gives_the_logits_of_sdpa():
    torch._dynamo.reset()
    model, batch = tiny_model(), pack(LAYOUTS[0])
    with torch.no_grad():  # on a CPU it has no backward
        wanted = model(**batch).logits
        model.set_attn_implementation({"text_config": "flex_attention", "vision_config": "sdpa"})
        torch.testing.assert_close(model(**batch).logits, wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "sdpa_packed"])
@pytest.mark.parametrize("rows", LAYOUTS)
def test_gradients_equal_alone_and_packed(attention, rows):
    count = sum(sum(s.target) for s in DOCUMENTS)
    alone, packed = tiny_model(), tiny_model()
    packed.set_attn_implementation(attention)
    for document in DOCUMENTS:
        alone(**pack([[document]]), num_items_in_batch=count).loss.backward()
    packed(**pack(rows), num_items_in_batch=count).loss.backward()
    compared = 0
    for (name, one), two in zip(alone.named_parameters(), packed.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(two.grad, one.grad, atol=1e-5, rtol=1e-4, msg=partial("{}: {}".format, name))
            compared += 1
    assert compared > 50


def test_without_restarts_a_document_sees_the_one_before():
    """The comparison above could tell: plain causal attention over the row changes the logits."""
    model = tiny_model()
    batch = pack([[DOCUMENTS[1], DOCUMENTS[0]]])
    masked = model(**batch).logits
    batch["position_ids"] = torch.arange(batch["input_ids"].shape[1])[None]
    assert (model(**batch).logits - masked).abs().max() > 0.01


def test_plain_call_keeps_documents_apart_too():
    """Without the index tensors, and in evaluation mode where a cache is the library's default."""
    model = tiny_model()
    batch = pack([[DOCUMENTS[1], DOCUMENTS[0]]])
    wanted = model(**batch).logits
    full = model(batch["input_ids"], batch["pixel_values"], position_ids=batch["position_ids"]).logits
    torch.testing.assert_close(full.flatten(0, 1)[batch["target_positions"]], wanted)


def test_learned_positions_give_the_loss_of_labels():
    model = tiny_model()
    document = DOCUMENTS[1]
    batch = pack([[document]])
    labels = torch.tensor([[t if wanted else -100 for t, wanted in zip(document.ids, document.target, strict=True)]])
    by_labels = model(batch["input_ids"], batch["pixel_values"], labels=labels)
    by_positions = model(**batch)
    assert by_labels.logits.shape[1] == len(document.ids)
    assert len(by_positions.logits) == sum(document.target)
    torch.testing.assert_close(by_positions.loss, by_labels.loss)
