"""How large a model is, by part, and how many FLOPs it takes."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.sparse import SparseBlock


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


def forward_flops(model: MM1ForConditionalGeneration, context: int) -> dict[str, int]:
    """Count FLOPs of a forward pass, a multiply and an add as two.

    Args:
        model: On any device, the meta device included.
        context: Tokens in a sequence: a token attends to half of them on average.

    Returns:
        `token`: of the decoder for one token, vocabulary head included; of sparse layers the experts it uses.
        `image`: of tower and connector for one image, as torch's own counter finds them.
    """
    text = model.config.text_config
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    active = active_parameters(model)["language_model"] + model.lm_head.weight.numel()
    attention = 2 * 2 * text.num_hidden_layers * text.num_attention_heads * head_size * context // 2
    size = model.config.vision_config.image_size
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.get_image_features(torch.empty(1, 3, size, size, device=model.device))
    return {"token": 2 * active + attention, "image": int(counter.get_total_flops())}


def _sparse(model: nn.Module) -> list[SparseBlock]:
    return [module for module in model.modules() if isinstance(module, SparseBlock)]


def _idle(block: SparseBlock) -> int:
    """Return the parameters of the experts that a token does not use."""
    experts = block.experts.num_experts
    return _count(block.experts) * (experts - block.top_k) // experts


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
