"""The loss of a batch: the cross entropy of its target tokens, and the routers' losses with them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

NO_TARGET = -100
"""The label of a place that has no target, as in `torch` and `transformers`."""


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
