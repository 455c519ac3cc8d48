"""Attention inside the documents of packed rows, without a mask: `varlen`.

The library's `sdpa` gives packed rows a mask over the whole row, and a kernel with a mask computes every pair of tokens
in it. Here every document gets causal attention of its own, so that the work falls from the square of the row to the
sum of the documents' squares. The result is the same.

    model.set_attn_implementation("varlen")     # known to the library once mm1.model is imported

On a GPU in half precision one kernel computes all documents (torch's `varlen_attn`); elsewhere they are computed one
after the other, which is the fastest on a CPU. Where rows are not packed (padding, a cache, a vision tower), and inside
a compiled graph on a CPU, this is the library's `sdpa`. `sdpa_packed` is an older name of the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mm1.model.borders import Borders

NAMES = ("varlen", "sdpa_packed")

NO_MASK = (0, 0, 0, 0)
"""Shape of a mask that stands for none. The library makes no other for it, which costs a look at the positions."""


def varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: torch.Tensor | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside documents, by the library's attention interface.

    Args:
        module: The attention layer.
        query: `(B, heads, L, C)`.
        key: `(B, key-value heads, L, C)`.
        value: `(B, key-value heads, L, C)`.
        attention_mask: None for packed rows.
        dropout: Of the attention's weights.
        scaling: Of the scores; default `C ** -0.5`.
        position_ids: `(B, L)` or `(1, L)`, which tell the documents apart if their borders are not given.
        cu_seq_lens_q: `(documents + 1,)` int32, the documents' borders in the flattened rows.
        max_length_q: The longest document.
        kwargs: Passed to the library's `sdpa` where rows are not packed.

    Returns:
        `(B, L, heads, C)`, and None for the weights, which are not kept.

    Raises:
        ValueError: If the decoder does not say where documents begin.
    """
    rows, _, length, _ = query.shape
    causal = getattr(module, "is_causal", True)
    if attention_mask is not None and attention_mask.shape == NO_MASK:
        attention_mask = None
    if not causal or attention_mask is not None or length == 1 or length != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if cu_seq_lens_q is None or max_length_q is None:
        if position_ids is None:
            name = type(module).__name__
            raise ValueError(f"{name} gives attention no position_ids: take another attn_implementation")
        borders = Borders.of(position_ids.expand(rows, -1))
        cu_seq_lens_q, max_length_q = borders.cu_seq_lens, borders.longest
    # Under autocast, positions are applied in float32. torch's kernel casts nothing; the library's would be cast for
    # each document.
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    # (tokens, heads, C): the rows end to end
    q, k, v = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (query, key, value))
    if has_kernel(query, dtype) and not dropout:
        attended = varlen_attn(
            q,
            k,
            v,
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        assert isinstance(attended, torch.Tensor)
    else:
        lengths = [length for length in cu_seq_lens_q.diff().tolist() if length]
        attended = one_by_one(q, k, v, lengths, dropout, scaling)
    return attended.unflatten(0, (rows, length)), None


def has_kernel(query: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether one kernel can compute all documents: on a GPU, in half precision, with channels that it takes."""
    return query.is_cuda and dtype in (torch.bfloat16, torch.float16) and query.shape[-1] % 8 == 0


def one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    dropout: float = 0.0,
    scaling: float | None = None,
) -> torch.Tensor:
    """Attend inside one document after the other.

    Args:
        query: `(tokens, heads, C)`.
        key: `(tokens, key-value heads, C)`.
        value: `(tokens, key-value heads, C)`.
        lengths: The documents'; they add up to the tokens.
        dropout: Of the attention's weights.
        scaling: Of the scores; default `C ** -0.5`.

    Returns:
        `(tokens, heads, C)`.
    """
    groups = query.shape[1] // key.shape[1]
    # (1, heads, tokens, C): with three dimensions the fused kernel is not taken.
    queries, keys, values = (
        repeat_kv(x.transpose(0, 1)[None], times).split(lengths, 2)
        for x, times in ((query, 1), (key, groups), (value, groups))
    )
    attended = [
        nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True)
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(attended, 2)[0].transpose(0, 1)


def varlen_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> torch.Tensor | None:
    """Return no mask for causal attention inside documents, which `varlen_attention` keeps apart itself.

    The arguments are those of the library's `sdpa_mask`, which makes the mask in every other case.
    """
    plain = attention_mask is None and local_size is None and not use_vmap
    traced = torch.compiler.is_compiling() and torch.device(device).type != "cuda"
    if plain and q_length == kv_length and not traced:
        return None
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        attention_mask=attention_mask,
        local_size=local_size,
        use_vmap=use_vmap,
        device=device,
        **kwargs,
    )


for _name in NAMES:
    AttentionInterface.register(_name, varlen_attention)
    AttentionMaskInterface.register(_name, varlen_mask)
