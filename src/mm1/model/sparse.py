"""Mixture of experts: the FFN of every n-th decoder layer replaced by the library's sparse block (paper sec. 3.4).

Each token goes to its two best experts, none is dropped, and the experts are computed in groups
(`grouped_mm`). Only the decoder's FFNs become sparse; vision tower and connector stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import MixtralConfig, PreTrainedModel
from transformers import initialization as init
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from mm1.errors import UserError

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config


@dataclass
class Routing:
    """What the routers of one forward pass did, over the tokens that are not padding.

    Attributes:
        loss: Scalar, both losses with their weights, summed over the sparse layers.
        balance: Scalar, mean over the sparse layers of the balance loss; 1 where the load is even.
        z: Scalar, mean over the sparse layers of the router's z-loss.
        load: `(sparse layers, experts)`, the share of the assignments that each expert got; rows add up to 1.
    """

    loss: torch.Tensor
    balance: torch.Tensor
    z: torch.Tensor
    load: torch.Tensor


class SparseBlock(MixtralSparseMoeBlock):
    """Mixtral's sparse block, which also keeps its router's logits for the losses."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(config)
        self.routed: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `(B, L, D)` to `(B, L, D)`."""
        tokens = hidden_states.flatten(0, 1)
        logits, weights, experts = self.gate(tokens)
        self.routed = (logits, experts)
        return self.experts(tokens, experts, weights).view_as(hidden_states)


def is_sparse(layer: int, config: MM1Config) -> bool:
    """Whether a decoder layer is sparse: the last of every `moe_every` (the paper does not say which)."""
    return config.moe_num_experts > 0 and (layer + 1) % config.moe_every == 0


def sparsify(decoder: PreTrainedModel, config: MM1Config) -> None:
    """Replace the FFN of every n-th layer by a sparse block with fresh experts, in place.

    Args:
        decoder: A decoder whose layers have a gated FFN without biases (Llama, Qwen, SmolLM, OLMo).
        config: Says how many experts, for how many tokens each, in which layers.

    Raises:
        UserError: If the decoder's FFN is of another kind, or the numbers do not fit.
    """
    if config.moe_num_experts == 0:
        return
    layers: Any = decoder.layers
    if config.moe_top_k > config.moe_num_experts:
        raise UserError(
            f"{config.moe_top_k} experts per token of {config.moe_num_experts} experts: give at least as many experts"
        )
    if config.moe_every > len(layers):
        raise UserError(
            f"one sparse layer in every {config.moe_every} leaves none of {len(layers)} layers sparse: "
            "give a smaller distance"
        )
    for number, layer in enumerate(layers):
        if is_sparse(number, config):
            layer.mlp = _sparse_block(layer.mlp, config)


def _sparse_block(dense: nn.Module, config: MM1Config) -> SparseBlock:
    """Return a sparse block whose experts have a dense FFN's shape, with fresh weights."""
    if [n for n, _ in dense.named_parameters()] != ["gate_proj.weight", "up_proj.weight", "down_proj.weight"]:
        raise UserError(
            f"a {config.text_config.model_type} decoder can't be made sparse: its FFN is not gate, up and "
            "down projection without bias"
        )
    gate: Any = dense.gate_proj
    if config.moe_implementation == "grouped_mm" and (gate.in_features % 8 or gate.out_features % 8):
        raise UserError(
            f"experts of width {gate.in_features} and {gate.out_features} can't be computed by grouped_mm: "
            "make both multiples of 8"
        )
    settings = MixtralConfig(
        hidden_size=gate.in_features,
        intermediate_size=gate.out_features,
        num_local_experts=config.moe_num_experts,
        num_experts_per_tok=config.moe_top_k,
        hidden_act=config.text_config.hidden_act,
    )
    settings._experts_implementation = config.moe_implementation
    block = SparseBlock(settings).to(gate.weight.device, gate.weight.dtype)
    std = config.text_config.initializer_range
    with torch.no_grad():
        for parameter in block.parameters():
            init.normal_(parameter, std=std)
    return block


def upcycle(decoder: PreTrainedModel, dense: nn.Module, copy: bool = True) -> None:
    """Load a dense decoder's weights into a sparsified one, its FFNs into every expert of their layer.

    The first forward then equals the dense decoder's, since a token's expert weights add up to 1.

    Args:
        decoder: Sparsified by `sparsify`; its routers keep their weights.
        dense: The dense decoder of the same shape.
        copy: False leaves the experts their own fresh weights.
    """
    tensors = dense.state_dict()
    own = decoder.state_dict()
    layers: Any = decoder.layers
    for number, layer in enumerate(layers):
        if not isinstance(layer.mlp, SparseBlock):
            continue
        name = f"layers.{number}.mlp."
        gate, up, down = (tensors.pop(f"{name}{part}_proj.weight") for part in ("gate", "up", "down"))
        tensors[f"{name}gate.weight"] = own[f"{name}gate.weight"]
        for part, values in (("gate_up_proj", torch.cat([gate, up])), ("down_proj", down)):
            key = f"{name}experts.{part}"
            tensors[key] = values.expand_as(own[key]) if copy else own[key]
    decoder.load_state_dict(tensors)


def routing(decoder: nn.Module, config: MM1Config, padding: torch.Tensor | None) -> Routing | None:
    """Collect what the routers did in the last forward pass, and forget it.

    Per sparse layer, with E experts, f_e the share of tokens whose first choice is expert e and P_e the mean
    probability of e: balance = E * sum_e(f_e * P_e) (GShard, Switch Transformer eq. 4; first choices only, as
    AXLearn has it), z = mean(logsumexp(logits)^2) (ST-MoE eq. 5). The paper's weights are 0.01 and 0.001; as in
    Switch Transformer, every layer's losses are added.

    Args:
        decoder: Holds the sparse blocks.
        config: Says the losses' weights.
        padding: `(B * L,)` bool, True at padding, which counts in nothing; None: no padding.

    Returns:
        None for a dense decoder.
    """
    blocks = [module for module in decoder.modules() if isinstance(module, SparseBlock)]
    routed = [block.routed for block in blocks]
    for block in blocks:
        block.routed = None
    kept = [r for r in routed if r is not None]
    if not kept:
        return None
    balance, z, load = zip(*(_losses(*r, config.moe_num_experts, padding) for r in kept), strict=True)
    total = config.moe_balance_loss * sum(balance) + config.moe_z_loss * sum(z)
    return Routing(
        loss=torch.as_tensor(total),
        balance=torch.stack(balance).mean().detach(),
        z=torch.stack(z).mean().detach(),
        load=torch.stack(load),
    )


def _losses(
    logits: torch.Tensor, experts: torch.Tensor, num_experts: int, padding: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return balance loss, z-loss and load of one layer from logits `(T, E)` and choices `(T, k)`."""
    logits = logits.float()  # sums and not matrix products below: autocast would round those
    weight = logits.new_ones(len(logits)) if padding is None else (~padding).to(logits.dtype)
    weight = weight / weight.sum().clamp(min=1)
    probability = (weight[:, None] * logits.softmax(-1)).sum(0)
    first = torch.zeros_like(probability).index_add(0, experts[:, 0], weight)
    balance = num_experts * (first * probability).sum()
    z = (weight * logits.logsumexp(-1).square()).sum()
    shares = weight.repeat_interleave(experts.shape[1]) / experts.shape[1]
    load = torch.zeros_like(probability).index_add(0, experts.flatten(), shares).detach()
    return balance, z, load
