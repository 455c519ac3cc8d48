"""Attention by the borders of documents: the arguments that kernels get, and what is computed from them.

The kernels themselves need a GPU. Here plain attention stands in for them, document by document as they are told.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import modeling_flash_attention_utils

from mm1.model import attention as module
from mm1.model.attention import one_by_one
from mm1.model.borders import Borders

from .builders import pack, sample, tiny_model
from .test_contract import MIXED, left_padded
from .test_sparse import FAMILIES, family

ROWS = [[sample("i5", 1), sample("3i2i4", 2)], [sample("9", 3), sample("ii1", 4)]]


class Kernel:
    """Stands in for a kernel of variable lengths, and keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], int]] = []

    def __call__(self, q: Any, k: Any, v: Any, borders: torch.Tensor, longest: int, scale: Any) -> torch.Tensor:
        assert borders.dtype == torch.int32
        lengths = borders.diff().tolist()
        assert sum(lengths) == len(q)
        assert max(lengths) == longest
        self.calls.append((lengths, longest))
        return one_by_one(q, k, v, [n for n in lengths if n], scaling=scale)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """The kernels of torch and of flash-attn, stood in for."""
    kernel = Kernel()

    def torchs(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
        assert cu_q is cu_k
        assert max_q == max_k
        assert window_size == (-1, 0)
        assert enable_gqa == (q.shape[1] != k.shape[1])
        return kernel(q, k, v, cu_q, max_q, scale)

    def flash(q, k, v, *, causal, softmax_scale, **kwargs):
        """Attention of the whole batch without borders."""
        assert causal
        rows, length = q.shape[:2]
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        return one_by_one(q, k, v, [length] * rows, scaling=softmax_scale).unflatten(0, (rows, length))

    def flash_varlen(
        q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, softmax_scale, **kwargs
    ):
        assert causal
        return kernel(q, k, v, cu_seqlens_q, max_seqlen_q, softmax_scale)

    def arguments(
        query_length, key_length, is_causal, dropout, softmax_scale, max_seqlen_q=None, max_seqlen_k=None, **_
    ):
        given = {"causal": is_causal, "softmax_scale": softmax_scale}
        return given if max_seqlen_q is None else given | {"max_seqlen_q": max_seqlen_q, "max_seqlen_k": max_seqlen_k}

    functions = (flash, flash_varlen, None, None, None), (arguments, None)
    monkeypatch.setattr(modeling_flash_attention_utils, "lazy_import_flash_attention", lambda *_: functions)
    monkeypatch.setattr(module, "varlen_attn", torchs)
    monkeypatch.setattr(module, "has_kernel", lambda *_: True)
    return kernel


def set_attention(model: Any, name: str) -> Any:
    """Choose an attention that this machine doesn't have."""
    model.config.text_config._attn_implementation_internal = name
    return model


@pytest.mark.parametrize("given", [True, False], ids=["borders given", "borders found"])
@pytest.mark.parametrize("name", ["varlen", "flash_attention_2"])
@pytest.mark.parametrize("decoder", FAMILIES)
def test_several_packed_rows_equal_sdpa(kernel: Kernel, decoder: str, name: str, given: bool) -> None:
    model = tiny_model(text_config=family(decoder))
    batch = pack(ROWS)
    wanted = model(**batch).logits
    borders = Borders.of(batch["position_ids"]).padded(64)
    logits = set_attention(model, name)(**batch, **(borders.arguments() if given else {})).logits
    torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=1e-5)
    assert len(kernel.calls) == model.config.text_config.num_hidden_layers
    lengths, longest = kernel.calls[0]
    assert (len(lengths) == 63) == given
    assert longest == max(lengths)


def test_the_kernel_gets_the_precision_of_autocast(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions are applied in float32 under autocast, and a kernel takes half precision alone."""
    seen = []
    monkeypatch.setattr(module, "has_kernel", lambda query, dtype: dtype == torch.bfloat16)
    stand_in = module.varlen_attn

    def noting(q: torch.Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(q.dtype)
        return stand_in(q, *rest, **more)

    monkeypatch.setattr(module, "varlen_attn", noting)
    model = tiny_model()
    batch = pack(ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = model(**batch).logits
        logits = set_attention(model, "varlen")(**batch).logits
    assert set(seen) == {torch.bfloat16}
    torch.testing.assert_close(logits, wanted, atol=0.05, rtol=0.05)


def test_rows_that_are_not_packed_go_without_the_kernel(kernel: Kernel) -> None:
    model = tiny_model()
    batch = left_padded(MIXED)
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    wanted = model.generate(**batch, **settings)
    assert torch.equal(set_attention(model, "varlen").generate(**batch, **settings), wanted)
    assert not kernel.calls


def test_borders_of_other_rows_are_left_out(kernel: Kernel) -> None:
    """Borders beside a mask would be taken for true."""
    model = tiny_model()
    batch = left_padded(MIXED)
    wanted = model(**batch).logits
    wrong = Borders(torch.tensor([0, 1], dtype=torch.int32), 1).arguments()
    torch.testing.assert_close(set_attention(model, "varlen")(**batch, **wrong).logits, wanted, atol=2e-5, rtol=1e-5)


def test_the_positions_are_not_looked_at_where_borders_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a look at them waits for the device."""
    from transformers import masking_utils

    def look(*_: Any) -> None:
        raise AssertionError("the positions are looked at")

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", look)
    model = tiny_model()
    model.set_attn_implementation({"text_config": "varlen"})
    batch = pack(ROWS)
    model(**batch, **Borders.of(batch["position_ids"]).arguments())
    with pytest.raises(AssertionError, match="looked at"):
        model(**batch)
