"""What MM1's models return. Outputs hold tensors only: the library's Trainer, DDP and FSDP look into them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, ModelOutput

from mm1.model.routing import Routing


class WithRouting:
    """An output that says what the routers of a sparse decoder did."""

    aux_loss: torch.Tensor | None
    router_balance: torch.Tensor | None
    router_z: torch.Tensor | None
    router_counts: torch.Tensor | None

    @property
    def routing(self) -> Routing | None:
        """The routers' figures together; None for a dense decoder."""
        loss, balance, z, counts = self.aux_loss, self.router_balance, self.router_z, self.router_counts
        if loss is None or balance is None or z is None or counts is None:
            return None
        return Routing(loss, balance, z, counts)


@dataclass
class MM1ModelOutput(WithRouting, BaseModelOutputWithPast):
    """What `MM1Model` returns: the decoder's output and the image tokens.

    Attributes:
        image_hidden_states: `(N, tokens per image, D)`, or None without images.
        router_logits: Per sparse layer `(B * L, experts)`, if asked for.
        aux_loss: `Routing.loss`; this and the following are None for a dense decoder.
        router_balance: `Routing.balance`.
        router_z: `Routing.z`.
        router_counts: `Routing.counts`.
    """

    image_hidden_states: torch.Tensor | None = None
    router_logits: tuple[torch.Tensor, ...] | None = None
    aux_loss: torch.Tensor | None = None
    router_balance: torch.Tensor | None = None
    router_z: torch.Tensor | None = None
    router_counts: torch.Tensor | None = None


@dataclass
class MM1Output(WithRouting, ModelOutput):
    """What `MM1ForConditionalGeneration` returns.

    Attributes:
        loss: Cross entropy of the target tokens and, for each of them, the routers' losses, over the number of
            items; a scalar.
        logits: `(B, L, V)`, or `(M, V)` where `target_positions` are given.
        past_key_values: The cache, where one is used.
        hidden_states: Of the decoder, if asked for.
        attentions: Of the decoder, if asked for.
        image_hidden_states: `(N, tokens per image, D)`, or None without images.
        router_logits: Per sparse layer `(B * L, experts)`, if asked for.
        aux_loss: `Routing.loss`; this and the following are None for a dense decoder. `loss` includes it; who
            computes a loss from `logits` or takes `loss_sum` adds it.
        router_balance: `Routing.balance`.
        router_z: `Routing.z`.
        router_counts: `Routing.counts`.
        loss_sum: Sum of the target tokens' cross entropies and z-losses, if `z_loss` is given; a scalar.
        target_losses: `(M,)` detached cross entropies, if `z_loss` is given.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None
    router_logits: tuple[torch.Tensor, ...] | None = None
    aux_loss: torch.Tensor | None = None
    router_balance: torch.Tensor | None = None
    router_z: torch.Tensor | None = None
    router_counts: torch.Tensor | None = None
    loss_sum: torch.Tensor | None = None
    target_losses: torch.Tensor | None = None


@dataclass
class MM1ImageFeatures(BaseModelOutputWithPooling):
    """What `get_image_features` returns: the vision tower's output and the image tokens made of it.

    Attributes:
        last_hidden_state: Of the vision tower.
        pooler_output: `(N, tokens per image, D)`, the image tokens.
        hidden_states: Of the vision tower, if asked for.
        attentions: Of the vision tower, if asked for.
    """

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> torch.Tensor:
        """Flatten the image tokens, as callers do for whom version 0.1 returned the tensor alone."""
        assert self.pooler_output is not None
        return self.pooler_output.flatten(start_dim, end_dim)
