"""The loss of multimodal pre-training: cross entropy over learned tokens, per kind of document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from mm1.data.loader import Batch
from mm1.document import KINDS
from mm1.model import MM1ForConditionalGeneration
from mm1.processing.processor import MM1Processor


@dataclass
class Losses:
    """Sums over the learned tokens of a micro-batch.

    Attributes:
        total: Scalar to differentiate: the sum of the losses.
        by_kind: (len(KINDS),) detached sums of the cross entropy.
        tokens_by_kind: (len(KINDS),) numbers of learned tokens.
    """

    total: torch.Tensor
    by_kind: torch.Tensor
    tokens_by_kind: torch.Tensor


def language_model_loss(
    model: MM1ForConditionalGeneration, processor: MM1Processor, batch: Batch, z_loss: float = 0.0
) -> Losses:
    """Run the model on a micro-batch and sum the cross entropy of its learned tokens.

    Args:
        model: Computes logits only where a token is learned.
        processor: Normalises the pixels.
        batch: On the model's device.
        z_loss: Weight of the squared log-partition, for stability (recalled for MM1-30B: 1e-4).
    """
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "position_ids", "learned_positions")}
    if len(batch["pixel_values"]):
        inputs["pixel_values"] = processor.normalize(batch["pixel_values"])
        inputs["image_positions"] = batch["image_positions"]
    logits = model(**inputs, use_cache=False).logits.float()
    losses = F.cross_entropy(logits, batch["target_ids"], reduction="none")
    kinds = batch["target_kinds"]
    empty = torch.zeros(len(KINDS), device=losses.device)
    by_kind = empty.index_add(0, kinds, losses.detach())
    tokens_by_kind = empty.index_add(0, kinds, torch.ones_like(losses.detach()))
    total = losses.sum()
    if z_loss:
        total = total + z_loss * logits.logsumexp(-1).square().sum()
    return Losses(total, by_kind, tokens_by_kind)
