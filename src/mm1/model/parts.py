"""The parts of a model, by the names that recipes and logs give them."""

from __future__ import annotations

from typing import Any

from torch import nn

from mm1.model.convolutional import ConvolutionalTower
from mm1.model.modeling import MM1ForConditionalGeneration


def parts_of(model: MM1ForConditionalGeneration) -> dict[str, nn.Module]:
    """Return `vision`, `connector` and `language_model` (with its embedding, without the vocabulary head)."""
    inner = model.model
    return {"vision": inner.vision_tower, "connector": inner.connector, "language_model": inner.language_model}


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """Return a tower's layers: the members of its longest `ModuleList`; of a convolutional one of the outermost."""
    lists = [list(module) for module in tower.modules() if isinstance(module, nn.ModuleList)]
    if isinstance(tower, ConvolutionalTower):  # stages, whose own lists may be longer
        return lists[0] if lists else []
    return max(lists, key=len, default=[])


def recompute_layers(model: Any) -> None:
    """Have a model of `transformers` compute its layers again in the backward pass, instead of keeping activations."""
    newer = getattr(model, "activation_checkpointing_enable", None)  # its name from 5.23 on
    (newer or model.gradient_checkpointing_enable)()
