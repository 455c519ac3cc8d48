"""The loss of a batch: the cross entropy of its target tokens, and the routers' losses with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

NO_TARGET = -100
"""The label of a place that has no target, as in `torch` and `transformers`."""
LOGITS_AT_ONCE = 2**26
"""Most logits (targets times vocabulary) that are computed at once for a summed loss: 256 MB in float32."""


def next_tokens(
    labels: torch.Tensor | None, shift_labels: torch.Tensor | None, image_token_id: int | None
) -> torch.Tensor | None:
    """Return the target of each place, `(B, L)`; None without labels.

    Args:
        labels: `(B, L)`, the token at each place.
        shift_labels: `(B, L)`, the token after each place; comes before `labels`.
        image_token_id: Stands where an image's features go and is no word to be learned; None: there are no images.
    """
    if shift_labels is None:
        if labels is None:
            return None
        shift_labels = F.pad(labels[..., 1:], (0, 1), value=NO_TARGET)
    return (
        shift_labels if image_token_id is None else shift_labels.masked_fill(shift_labels == image_token_id, NO_TARGET)
    )


def mean_loss(
    cross_entropy: Callable[..., torch.Tensor],
    logits: torch.Tensor,
    targets: torch.Tensor,
    num_items: int | torch.Tensor | None,
    aux_loss: torch.Tensor | None,
) -> torch.Tensor:
    """Return the summed loss of the target tokens over a number of items.

    Each target token brings its cross entropy and the routers' losses, so both have the same mean over
    micro-batches and ranks.

    Args:
        cross_entropy: The library's function, which divides the sum by `num_items_in_batch`.
        logits: `(..., V)`.
        targets: `(...)`.
        num_items: Default: the target tokens given here. Without any, the loss is 0.
        aux_loss: The routers' losses of this batch.
    """
    targets = targets.to(logits.device)
    count = (targets != NO_TARGET).sum()
    items = (count if num_items is None else torch.as_tensor(num_items, device=logits.device)).clamp(min=1)
    loss = cross_entropy(
        logits=logits, labels=None, shift_labels=targets, vocab_size=logits.shape[-1], num_items_in_batch=items
    )
    if aux_loss is None:
        return loss
    return loss + (count / items) * aux_loss.to(loss.device)


def summed_loss(
    rows: torch.Tensor, head: nn.Linear, targets: torch.Tensor, z_loss: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the targets' losses, and the loss of each; logits of many targets are never all in memory.

    Up to `LOGITS_AT_ONCE` logits are computed as a whole. More are computed in chunks of rows, with their gradients, so
    nothing is computed twice.

    Args:
        rows: `(M, D)`, what the head reads.
        head: The vocabulary head, V by D, without a bias.
        targets: `(M,)`; `NO_TARGET` counts for nothing.
        z_loss: Weight of the squared log-partitions.

    Returns:
        Scalar to differentiate, cross entropies and z-losses, at least in float32; `(M,)` detached cross entropies, 0
        where there is no target.
    """
    vocabulary = head.weight.shape[0]
    if len(rows) * vocabulary > LOGITS_AT_ONCE:
        at_once = max(1, LOGITS_AT_ONCE // vocabulary)
        at_once -= at_once % 128 if at_once > 128 else 0  # sizes that matrix units like
        total, losses = _Chunked.apply(rows, head.weight, targets, z_loss, at_once)
        return total, losses
    logits = head(rows).float()
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=NO_TARGET)
    total = losses.sum()
    if z_loss:
        total = total + z_loss * (logits.logsumexp(-1).square() * (targets != NO_TARGET)).sum()
    return total, losses.detach()


class _Chunked(torch.autograd.Function):
    """The summed loss in chunks of rows: the gradients of a chunk are computed while its logits are there."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, z_loss: float, at_once: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `summed_loss`; `at_once` is the number of rows of a chunk."""
        device = rows.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
        hidden, matrix = rows.to(dtype), weight.to(dtype)
        ctx.dtypes = rows.dtype, weight.dtype
        of_rows, of_weight = ctx.needs_input_grad[:2]
        precise = torch.promote_types(dtype, torch.float32)
        rows_gradient = torch.empty_like(hidden) if of_rows else None
        weight_gradient = torch.zeros_like(matrix, dtype=precise) if of_weight else None
        losses = torch.empty(len(rows), dtype=precise, device=rows.device)
        total = losses.new_zeros(())
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            logits = (hidden[part] @ matrix.T).to(precise)
            counts = targets[part] != NO_TARGET
            picked = targets[part].clamp(min=0)[:, None]
            partition = logits.logsumexp(-1)
            losses[part] = (partition - logits.gather(1, picked).squeeze(1)) * counts
            total += losses[part].sum() + z_loss * (partition.square() * counts).sum()
            if not (of_rows or of_weight):
                continue
            # d/dlogits of a row: its probabilities times (1 + 2 z log-partition), less 1 at the target.
            gradient = logits.sub_(partition[:, None]).exp_().mul_(((1 + 2 * z_loss * partition) * counts)[:, None])
            gradient = gradient.scatter_add_(1, picked, -counts.to(precise)[:, None]).to(dtype)
            if rows_gradient is not None:
                rows_gradient[part] = gradient @ matrix
            if weight_gradient is not None:
                weight_gradient += gradient.T @ hidden[part]
        ctx.save_for_backward(rows_gradient, weight_gradient)
        ctx.mark_non_differentiable(losses)
        return total, losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        """Scale the gradients in place: a second pass backward is an error."""
        scaled = [None if gradient is None else gradient.mul_(upstream) for gradient in ctx.saved_tensors]
        gradients = [None if g is None else g.to(dtype) for g, dtype in zip(scaled, ctx.dtypes, strict=True)]
        return *gradients, None, None, None
