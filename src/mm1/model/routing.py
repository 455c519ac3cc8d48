"""What the routers of a sparse decoder did: their losses, and the load of the experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config


@dataclass
class Routing:
    """What the routers of one forward pass did, over the tokens that are not padding.

    Attributes:
        loss: Scalar, both losses with their weights, summed over the sparse layers.
        balance: Scalar, mean over the sparse layers of the balance loss; 1 where the load is even.
        z: Scalar, mean over the sparse layers of the router's z-loss.
        counts: `(sparse layers, experts)` int64, how many assignments each expert got.
    """

    loss: torch.Tensor
    balance: torch.Tensor
    z: torch.Tensor
    counts: torch.Tensor

    @property
    def load(self) -> torch.Tensor:
        """`(sparse layers, experts)`, the share of the assignments that each expert got; rows add up to 1."""
        return self.counts / self.counts.sum(1, keepdim=True).clamp(min=1)

    @property
    def fields(self) -> dict[str, torch.Tensor]:
        """What an output holds of it, by name."""
        return {
            "aux_loss": self.loss,
            "router_balance": self.balance,
            "router_z": self.z,
            "router_counts": self.counts,
        }


def routing(
    routed: Sequence[tuple[torch.Tensor, torch.Tensor]], config: MM1Config, padding: torch.Tensor | None
) -> Routing | None:
    """Sum up what the routers did.

    Per sparse layer, with E experts, f_e the share of tokens whose first choice is expert e and P_e the mean
    probability of e: balance = E * sum_e(f_e * P_e) (GShard, Switch Transformer eq. 4; first choices only, as
    AXLearn has it), z = mean(logsumexp(logits)^2) (ST-MoE eq. 5). The paper's weights are 0.01 and 0.001; as in
    Switch Transformer, every layer's losses are added.

    Args:
        routed: Per sparse layer logits `(B * L, experts)` and choices (see `mm1.model.sparse.take_routed`).
        config: Says the losses' weights.
        padding: `(B * L,)` bool, True at padding, which counts in nothing; None: no padding.

    Returns:
        None for a dense decoder.
    """
    if not routed:
        return None
    device = routed[-1][0].device  # layers may lie on several devices
    found = [[value.to(device) for value in _losses(*some, config.moe_num_experts, padding)] for some in routed]
    balance, z, counts = zip(*found, strict=True)
    total = config.moe_balance_loss * sum(balance) + config.moe_z_loss * sum(z)
    return Routing(
        loss=torch.as_tensor(total),
        balance=torch.stack(balance).mean().detach(),
        z=torch.stack(z).mean().detach(),
        counts=torch.stack(counts),
    )


def is_padding(
    shape: torch.Size,
    past: int,
    attention_mask: Any,
    input_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    pad_token_id: int | None,
) -> torch.Tensor | None:
    """Return which tokens of a batch are padding, `(B * L,)` bool, or None where nothing tells.

    Args:
        shape: `(B, L)`, of the tokens that a forward pass computes.
        past: How many tokens before them are in the cache.
        attention_mask: `(B, L')`, 0 at padding; over the cached tokens too, and in some calls over places that have
            no token yet. Masks of other shapes don't say.
        input_ids: `(B, L)`.
        position_ids: `(B, L)` of packed rows.
        pad_token_id: Of the decoder.
    """
    if attention_mask is not None:
        if not isinstance(attention_mask, torch.Tensor) or attention_mask.ndim != 2:
            return None
        own = attention_mask[:, past : past + shape[1]]
        # The library takes a place that the mask does not reach for masked.
        return F.pad(own == 0, (0, shape[1] - own.shape[1]), value=True).flatten()
    if input_ids is None or position_ids is None or pad_token_id is None:
        return None
    # In packed rows each padding token is a document of its own; a real document has two tokens.
    alone = (position_ids == 0) & (F.pad(position_ids[:, 1:], (0, 1)) == 0)
    return (alone & (input_ids == pad_token_id)).flatten()


def _losses(
    logits: torch.Tensor, experts: torch.Tensor, num_experts: int, padding: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return balance loss, z-loss and counts of one layer from logits `(T, E)` and choices `(T, k)`."""
    padding = None if padding is None else padding.to(logits.device)
    logits = logits.float()  # sums and not matrix products below: autocast would round those
    weight = logits.new_ones(len(logits)) if padding is None else (~padding).to(logits.dtype)
    weight = weight / weight.sum().clamp(min=1)
    probability = (weight[:, None] * logits.softmax(-1)).sum(0)
    first = torch.zeros_like(probability).index_add(0, experts[:, 0], weight)
    balance = num_experts * (first * probability).sum()
    z = (weight * logits.logsumexp(-1).square()).sum()
    real = torch.ones_like(weight, dtype=torch.int64) if padding is None else (~padding).long()
    counts = real.new_zeros(num_experts).index_add(0, experts.flatten(), real.repeat_interleave(experts.shape[1]))
    return balance, z, counts
