"""SDPA one document at a time: the fastest attention for packed rows on a CPU.

The library's `sdpa` gives packed rows a mask over the whole row, and a kernel with a mask computes every pair of
tokens in it. Here the rows are cut at the documents' borders and each document gets causal attention without a
mask, so that the work falls from the square of the row to the sum of the documents' squares. The result is the
same. On a GPU flash attention does this in one kernel; the loop over documents would only wait for itself.

    model.set_attn_implementation("sdpa_packed")     # known to the library once mm1.model is imported

Where rows are not packed (padding, a cache, a vision tower), and inside a compiled graph, this is the library's `sdpa`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_packed"


def document_lengths(position_ids: torch.Tensor) -> list[int]:
    """Return the lengths of the documents in packed rows, one row after another.

    Args:
        position_ids: `(B, L)`; a document begins wherever they do not go up by one. A run of documents of one token
            each, as padding is, counts as one document: what they output predicts nothing.

    Returns:
        Lengths that add up to `B * L`; no document goes over a row's end.
    """
    start = torch.ones_like(position_ids, dtype=torch.bool)
    start[:, 1:] = position_ids.diff(dim=1) != 1
    padding = start.clone()
    padding[:, :-1] &= start[:, 1:]  # a document of one token: the next one begins at once
    start[:, 1:] &= ~(padding[:, 1:] & padding[:, :-1])
    places = start.flatten().nonzero().squeeze(1)
    return places.diff(append=places.new_tensor([start.numel()])).tolist()


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: torch.Tensor | None = None,
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
        position_ids: `(B, L)` or `(1, L)`, which tell the documents apart.
        kwargs: Passed to the library's `sdpa` where rows are not packed.

    Returns:
        `(B, L, heads, C)`, and None for the weights, which are not kept.

    Raises:
        ValueError: If the decoder does not say where documents begin.
    """
    rows, _, length, _ = query.shape
    causal = getattr(module, "is_causal", True)
    if not causal or attention_mask is not None or length == 1 or length != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if position_ids is None:
        raise ValueError(f"{type(module).__name__} gives attention no position_ids: take another attn_implementation")
    lengths = document_lengths(position_ids.expand(rows, -1))
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    # (tokens, heads, C): the rows end to end, so that documents are slices
    queries, keys, values = (x.transpose(1, 2).flatten(0, 1).split(lengths) for x in (query, key, value))
    # (1, heads, tokens, C): with three dimensions the fused kernel is not taken.
    attended = [
        nn.functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
        )[0].transpose(0, 1)
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(attended).unflatten(0, (rows, length)), None


def packed_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **kwargs: Any,
) -> torch.Tensor | None:
    """Return no mask for causal attention inside documents, which `packed_attention` keeps apart itself.

    The arguments are those of the library's `sdpa_mask`, which makes the mask in every other case.
    """
    plain = attention_mask is None and local_size is None and not use_vmap
    if plain and q_length == kv_length and not torch.compiler.is_compiling():
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
        **kwargs,
    )


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, packed_mask)
