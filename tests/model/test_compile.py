"""The training step compiles to one graph, for every connector and for sparse decoders."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from .builders import pack, sample, tiny_model

VARIANTS = {
    "average_pool": {},
    "c_abstractor": {"connector": "c_abstractor"},
    "attention_pool": {"connector": "attention_pool"},
    "inner layer": {"vision_feature_layer": -2},
    "sparse": {"moe_num_experts": 4, "moe_every": 2},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_training_step_has_no_graph_break(changes):
    torch._dynamo.reset()
    batch = pack([[sample("i5", 1), sample("9", 2)], [sample("2i3", 3)]])
    explanation = torch._dynamo.explain(tiny_model(**changes).train())(**batch)
    assert explanation.graph_count == 1
    assert explanation.graph_break_count == 0, [str(reason.reason) for reason in explanation.break_reasons]


def test_the_compiled_step_gives_the_same_loss_and_gradients():
    torch._dynamo.reset()
    batch = pack([[sample("i5", 1), sample("9", 2)], [sample("2i3", 3)]])
    model, compiled = tiny_model().train(), tiny_model().train()
    loss = model(**batch).loss
    loss.backward()
    again = torch.compile(compiled, backend="aot_eager", fullgraph=True)(**batch).loss
    again.backward()
    torch.testing.assert_close(again, loss)
    for (name, one), two in zip(model.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, msg=partial("{}: {}".format, name))
