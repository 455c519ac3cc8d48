"""How large a model is, by part, and how many FLOPs it takes."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mm1.model.convolutional import ConvolutionalTower
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.sparse import SparseBlock
from mm1.model.vision import patch_features


def parameters_by_part(model: MM1ForConditionalGeneration) -> dict[str, int]:
    """Count parameters: `vision`, `connector`, `language_model` (without embeddings), `embeddings`.

    Tied embeddings count once. The four add up to all of the model's parameters.
    """
    inner = model.model
    embeddings = {p for m in (inner.get_input_embeddings(), model.lm_head) for p in m.parameters()}
    decoder = set(inner.language_model.parameters()) - embeddings
    return {
        "vision": _count(inner.vision_tower),
        "connector": _count(inner.connector),
        "language_model": sum(p.numel() for p in decoder),
        "embeddings": sum(p.numel() for p in embeddings),
    }


def active_parameters(model: MM1ForConditionalGeneration) -> dict[str, int]:
    """Count parameters as `parameters_by_part` does, of each sparse layer only the experts one token uses."""
    parts = parameters_by_part(model)
    return parts | {"language_model": parts["language_model"] - sum(map(_idle, _sparse(model)))}


def non_embedding_parameters(model: MM1ForConditionalGeneration) -> int:
    """Count the decoder's parameters without embeddings: N of the learning-rate law (paper sec. 3.4).

    Of sparse layers one expert counts, since the paper trains its sparse models with the hyperparameters of
    their dense backbone.
    """
    experts = sum(_count(b.experts) * (b.experts.num_experts - 1) // b.experts.num_experts for b in _sparse(model))
    routers = sum(_count(b.gate) for b in _sparse(model))
    return parameters_by_part(model)["language_model"] - experts - routers


@dataclass(frozen=True)
class UnitFlops:
    """FLOPs of one of each thing that a step processes, a multiply and an add as two.

    Only matrix products and convolutions count, as in torch's own counter and in published figures of utilisation.

    Attributes:
        token: Forward pass of the decoder for one token, without attention's scores and the vocabulary head; of
            sparse layers the router and the experts that one token uses.
        pair: Forward pass, all layers: one token attends to one (scores and weighted sum).
        target_token: Forward pass of the vocabulary head, which runs where a token is a target.
        vision: Forward pass of the tower for one image.
        vision_backward: Its backward pass: less than twice as much, since pixels need no gradient; of a convolutional
            tower twice as much.
        connector: Forward pass for one image.
    """

    token: int
    pair: int
    target_token: int
    vision: int
    vision_backward: int
    connector: int


def unit_flops(model: MM1ForConditionalGeneration) -> UnitFlops:
    """Count what one token, one pair of tokens and one image cost.

    The decoder by formula, from the shapes of its weights; tower and connector by torch's own counter, whatever
    their architecture. Takes about a second and no memory.

    Args:
        model: On any device, sharded or not: a copy without weights is counted.
    """
    with torch.device("meta"):
        model = type(model)(copy.deepcopy(model.config))
    model.set_attn_implementation({"vision_config": "eager"})  # fused kernels are not counted everywhere
    inner, text = model.model, model.config.text_config
    matrices = sum(p.numel() for p in inner.language_model.parameters() if p.ndim > 1)
    active = matrices - inner.get_input_embeddings().weight.numel() - sum(map(_idle, _sparse(inner)))
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    size = model.config.vision_config.image_size
    with FlopCounterMode(display=False) as vision:
        pixels = torch.empty(1, 3, size, size, device="meta")
        patches = patch_features(inner.vision_tower, model.config, pixels)
    with FlopCounterMode(display=False) as vision_backward:
        patches.sum().backward()
    backward = vision_backward.get_total_flops()
    if isinstance(inner.vision_tower, ConvolutionalTower):  # of grouped convolutions torch counts it as of whole ones
        backward = 2 * vision.get_total_flops()
    with torch.no_grad(), FlopCounterMode(display=False) as connector:
        inner.connector(patches.detach())
    return UnitFlops(
        token=2 * active,
        pair=2 * 2 * text.num_hidden_layers * text.num_attention_heads * head_size,
        target_token=2 * model.lm_head.weight.numel(),
        vision=vision.get_total_flops(),
        vision_backward=backward,
        connector=connector.get_total_flops(),
    )


def flops_per_step(
    units: UnitFlops,
    *,
    tokens: float,
    pairs: float,
    target_tokens: float,
    images: float,
    frozen: Collection[str] = (),
    recompute: bool = False,
) -> dict[str, float]:
    """Return the FLOPs of a training step, forward and backward, by part of the model.

    The backward pass of a matrix product is two of the same size: one for the gradient of its input, one for that
    of its weights. Divided by time and peak this is the model FLOPs utilisation (arXiv 2204.02311, appendix B),
    with two differences that make it smaller and truer: a token attends to those before it and in its document, and
    the vocabulary head runs where a token is a target.

    Args:
        units: Of the model, from `unit_flops`.
        tokens: Tokens that the decoder reads, those of images included; without padding for what is useful.
        pairs: How many times a token attends to one: n (n + 1) / 2 for a document of n tokens. For packed rows it
            is `(position_ids + 1).sum()`.
        target_tokens: Tokens with a target.
        images: Images through tower and connector.
        frozen: Parts that don't learn: `vision`, `connector`, `language_model` (with its vocabulary head). They
            are still differentiated through where something below them learns.
        recompute: Whether the layers of tower and decoder are computed again in the backward pass
            (`train.activation_checkpointing`). Utilisation of the model leaves it out, that of the hardware not.
            All of a layer counts, though torch stops before its last product, whose result nothing needs: up to
            5 % too much.

    Returns:
        `vision`, `connector`, `language_model`.
    """
    learns = {part: part not in frozen for part in ("vision", "connector", "language_model")}
    vision = units.vision + learns["vision"] * (units.vision_backward + recompute * units.vision)
    # A frozen connector needs the gradient of its input alone, and that only for a tower that learns.
    connector = units.connector * (3 if learns["connector"] else 1 + learns["vision"])
    matrices = tokens * units.token + target_tokens * units.target_token
    scores = pairs * units.pair
    decoder = (3 if learns["language_model"] else 2) * matrices + 3 * scores
    again = recompute * (tokens * units.token + scores)
    return {"vision": images * vision, "connector": images * connector, "language_model": decoder + again}


def forward_flops(model: MM1ForConditionalGeneration, context: int) -> dict[str, int]:
    """Count FLOPs of a forward pass, a multiply and an add as two.

    Args:
        model: On any device, the meta device included.
        context: Tokens in a sequence: a token attends to half of them on average.

    Returns:
        `token`: of the decoder for one token, vocabulary head included; of sparse layers the experts it uses.
        `image`: of tower and connector for one image.
    """
    units = unit_flops(model)
    return {
        "token": units.token + units.target_token + units.pair * context // 2,
        "image": units.vision + units.connector,
    }


def _sparse(model: nn.Module) -> list[SparseBlock]:
    return [module for module in model.modules() if isinstance(module, SparseBlock)]


def _idle(block: SparseBlock) -> int:
    """Return the parameters of the experts that a token does not use."""
    experts = block.experts.num_experts
    return _count(block.experts) * (experts - block.top_k) // experts


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
