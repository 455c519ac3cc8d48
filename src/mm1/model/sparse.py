"""Mixture of experts: the FFN of every n-th decoder layer replaced by the library's sparse block (paper sec. 3.4).

Each token goes to its two best experts, none is dropped, and the experts are computed in groups
(`grouped_mm`). Only the decoder's FFNs become sparse; vision tower and connector stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import MixtralConfig, PreTrainedModel
from transformers import initialization as init
from transformers.models.mixtral.modeling_mixtral import MixtralExperts, MixtralTopKRouter

from mm1.errors import UserError, UserValueError
from mm1.model.dispatch import ExpertRanks

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config


_MIXTRAL: Any = MixtralConfig
EXPERTS_TP_PLAN: dict[str, str] = {k: v for k, v in _MIXTRAL.base_model_tp_plan.items() if ".experts" in k}
"""What tensor parallelism does with a decoder's experts: module -> style of the library."""
EXPERTS_EP_PLAN: dict[str, str] = _MIXTRAL.base_model_ep_plan
"""What expert parallelism does with them."""


class Router(MixtralTopKRouter):
    """The library's router, in float32 (Switch Transformer sec. 2.4): in bf16 near choices would be rounding's."""

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map tokens `(T, D)` to logits `(T, experts)`, weights `(T, k)` and choices `(T, k)`."""
        with torch.autocast(hidden_states.device.type, enabled=False):
            logits = F.linear(hidden_states.float(), self.weight.float())
        weights, choices = logits.softmax(-1).topk(self.top_k, -1)
        return logits, weights / weights.sum(-1, keepdim=True), choices


class Experts(MixtralExperts):
    """The library's experts, which may be spread over ranks.

    Attributes:
        ranks: Where they are; None: all are here.
    """

    ranks: ExpertRanks | None = None

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Map tokens `(T, D)`, their choices `(T, k)` and weights `(T, k)` to `(T, D)`."""
        if self.ranks is None:
            here: torch.Tensor = super().forward(hidden_states, top_k_index, top_k_weights)
            return here
        held = partial(MixtralExperts.forward, cast(MixtralExperts, _Held(self, self.ranks.held)))
        return self.ranks.compute(hidden_states, top_k_index, top_k_weights, held)


class _Held:
    """The experts that a rank holds, under the names by which the library's functions read a module."""

    def __init__(self, experts: Experts, number: int) -> None:
        self._experts, self.num_experts = experts, number

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._experts, name)
        return value.to_local() if isinstance(value, DTensor) else value


class SparseBlock(nn.Module):
    """A router and its experts (Mixtral's), which keeps the router's logits for the losses."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__()
        self.top_k: int = config.num_experts_per_tok
        self.gate = Router(config)
        self.experts = Experts(config)
        self.routed: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `(B, L, D)` to `(B, L, D)`."""
        tokens = hidden_states.flatten(0, 1)
        logits, weights, experts = self.gate(tokens)
        self.routed = (logits, experts)
        out: torch.Tensor = self.experts(tokens, experts, weights)
        return out.view_as(hidden_states)


def is_sparse(layer: int, config: MM1Config) -> bool:
    """Whether a decoder layer is sparse: the last of every `moe_every` (the paper does not say which)."""
    return config.moe_num_experts > 0 and (layer + 1) % config.moe_every == 0


def sparsify(decoder: PreTrainedModel, config: MM1Config) -> None:
    """Replace the FFN of every n-th layer by a sparse block, in place; its weights are yet to be drawn.

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


def draw_experts(decoder: nn.Module, std: float) -> None:
    """Draw the weights of routers and experts that are not loaded: Mixtral's rule, a normal distribution.

    Args:
        decoder: Sparsified by `sparsify`.
        std: The decoder's `initializer_range`.
    """
    for block in sparse_blocks(decoder):
        for parameter in block.parameters():
            init.normal_(parameter, std=std)


def sparse_blocks(decoder: nn.Module) -> list[SparseBlock]:
    """Return the sparse blocks of a decoder, in the order of its layers."""
    return [module for module in decoder.modules() if isinstance(module, SparseBlock)]


def expert_ranks(decoder: nn.Module) -> int:
    """Return over how many ranks a decoder's experts are spread."""
    found = [block.experts.ranks for block in sparse_blocks(decoder)[:1]]
    return found[0].group.size() if found and found[0] else 1


def _sparse_block(dense: nn.Module, config: MM1Config) -> SparseBlock:
    """Return a sparse block whose experts have a dense FFN's shape."""
    if [n for n, _ in dense.named_parameters()] != ["gate_proj.weight", "up_proj.weight", "down_proj.weight"]:
        raise UserError(
            f"a {config.text_config.model_type} decoder can't be made sparse: its FFN is not gate, up and "
            "down projection without bias"
        )
    gate: Any = dense.gate_proj
    if experts_implementation(config) == "grouped_mm" and (gate.in_features % 8 or gate.out_features % 8):
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
    block = SparseBlock(settings).to(gate.weight.device, gate.weight.dtype)
    block.experts.config = config  # type: ignore[assignment]  # where the library sets how experts are computed
    return block


def experts_implementation(config: MM1Config) -> str:
    """Return how the experts are computed: as asked for at loading, else as the configuration says."""
    return config._experts_implementation or config.moe_implementation


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


def checkpointed(checkpoint: Callable[..., Any], block: SparseBlock) -> Callable[..., Any]:
    """Return a checkpointing function for a sparse layer, whose output the routing is a part of.

    A reentrant checkpoint runs a layer without gradients first. What that run leaves behind on the side has none;
    what it returns has.

    Args:
        checkpoint: Calls a function with arguments and computes it again in the backward pass.
        block: The layer's.
    """

    def run(forward: Callable[..., Any], *args: Any) -> Any:
        alone = False

        def with_routing(*args: Any) -> tuple[torch.Tensor, ...]:
            nonlocal alone
            try:
                outputs = forward(*args)
                routed: Any = block.routed
            finally:  # the second run may end early, by an exception
                block.routed = None
            alone = not isinstance(outputs, tuple)
            return (*((outputs,) if alone else outputs), *routed)

        *outputs, logits, experts = checkpoint(with_routing, *args)
        block.routed = logits, experts
        return outputs[0] if alone else tuple(outputs)

    return run


def take_routed(decoder: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return what the routers gave in the last forward pass, layer by layer, and forget it.

    Returns:
        Per sparse layer logits `(B * L, experts)` and choices `(B * L, experts per token)`.

    Raises:
        UserValueError: If the losses made of the logits would have no gradient, which would go unseen.
    """
    taken = []
    for block in sparse_blocks(decoder):
        if block.routed is None:
            continue
        routed, block.routed = block.routed, None
        gate: Any = block.gate
        if torch.is_grad_enabled() and gate.weight.requires_grad and not routed[0].requires_grad:
            raise UserValueError(
                "the routers' losses would have no gradient, because a sparse layer runs under reentrant checkpointing "
                "that the model doesn't know of: call activation_checkpointing_enable of the whole model, or take "
                "use_reentrant=False"
            )
        taken.append(routed)
    return taken
