"""`sdpa_packed` is the library's `sdpa` in every use, and cheaper on packed rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config

from mm1.model import MM1ForConditionalGeneration
from mm1.model.borders import document_lengths

from .builders import VOCABULARY, pack, sample, tiny_config, tiny_model
from .test_contract import MIXED, left_padded
from .test_sparse import FAMILIES, family

NAME = "varlen"

ROWS = [[sample("i5", 1), sample("3i2i4", 2)], [sample("9", 3), sample("ii1", 4)]]


def both(**changes) -> tuple[MM1ForConditionalGeneration, MM1ForConditionalGeneration]:
    one, two = tiny_model(**changes), tiny_model(**changes)
    two.set_attn_implementation(NAME)
    assert two.config.text_config._attn_implementation == NAME
    return one, two


@given(st.lists(st.lists(st.integers(2, 9), max_size=6), min_size=1, max_size=4), st.integers(0, 5))
def test_lengths_of_any_rows(rows, extra):
    length = max(sum(row) for row in rows) + extra
    if length == 0:
        return
    positions = [[p for n in row for p in range(n)] + [0] * (length - sum(row)) for row in rows]
    wanted = [n for row in rows for n in [*row, length - sum(row)] if n]
    assert document_lengths(torch.tensor(positions)) == wanted


def test_lengths_of_cut_documents_and_single_tokens():
    positions = torch.tensor([[7, 8, 9, 0, 1, 0, 0, 1]])  # a document's later piece, a pair, one token, a pair
    assert document_lengths(positions) == [3, 2, 1, 2]


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_rows_of_every_family(name):
    one, two = both(text_config=family(name))
    batch = pack(ROWS)
    torch.testing.assert_close(two(**batch).logits, one(**batch).logits, atol=2e-5, rtol=1e-5)


def test_a_sliding_window_stays_one():
    def text(sliding: bool) -> Qwen2Config:
        return Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
            use_sliding_window=sliding,
            sliding_window=4,
            max_window_layers=1,
        )

    batch = pack(ROWS)
    one, two = both(text_config=text(sliding=True))
    torch.testing.assert_close(two(**batch).logits, one(**batch).logits, atol=2e-5, rtol=1e-5)
    wide = tiny_model(text_config=text(sliding=False))
    assert (wide(**batch).logits - one(**batch).logits).abs().max() > 0.01  # the window does something


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("use_cache", [True, False])
def test_padded_batches_and_generation(beams, use_cache):
    one, two = both()
    batch = left_padded(MIXED)
    torch.testing.assert_close(two(**batch).logits, one(**batch).logits, atol=2e-5, rtol=1e-5)
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": beams, "use_cache": use_cache}
    assert torch.equal(two.generate(**batch, **settings), one.generate(**batch, **settings))


def test_a_compiled_graph_stays_whole():
    torch._dynamo.reset()
    _, model = both()
    batch = pack(ROWS)
    explanation = torch._dynamo.explain(model.train())(**batch)
    assert (explanation.graph_count, explanation.graph_break_count) == (1, 0)


def test_attention_costs_the_documents_squares():
    """The FLOPs of attention fall as the documents' squares do against the rows'."""
    config = tiny_config()
    model = MM1ForConditionalGeneration(config)
    documents = [sample("9999", seed) for seed in range(8)]
    batch = pack([documents])

    def flops(attention: str) -> int:
        model.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
        counter = FlopCounterMode(display=False)
        with counter:
            model(**batch)
        by_kind = counter.get_flop_counts()["Global"]
        return sum(count for kind, count in by_kind.items() if "attention" in str(kind))

    assert flops(NAME) * 8 == flops("sdpa")


def test_under_autocast_rows_are_cast_once_and_not_for_each_document():
    """On a CPU: bfloat16 products of the documents are those of rows that were cast before."""
    model = tiny_model(text_config=family("llama"))
    model.set_attn_implementation(NAME)
    casts = []
    for rows in ([[sample("9", 3)]], [[sample("3", number) for number in range(3)]]):
        batch = pack(rows)
        with (
            torch.no_grad(),
            torch.autocast("cpu", torch.bfloat16),
            torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled,
        ):
            model(**batch)
        casts.append(sum(event.count for event in profiled.key_averages() if event.key == "aten::_to_copy"))
    assert casts[0] == casts[1]
