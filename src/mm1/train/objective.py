"""The losses of a micro-batch, and the language model's loss per kind of document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from mm1.document import KINDS
from mm1.model import MM1ForConditionalGeneration
from mm1.model.borders import Borders
from mm1.plan.loader import Batch
from mm1.processing.processor import MM1Processor


@dataclass
class Losses:
    """Sums of the loss over a micro-batch's terms (target tokens, or pictures).

    Attributes:
        total: Scalar to differentiate: the sum of the losses.
        by_kind: (len(KINDS),) detached sums of the loss, by kind of document.
        counts_by_kind: (len(KINDS),) number of terms in each sum.
        mean: Scalar to differentiate that is already a mean over the micro-batch (the routers' losses), or None.
        figures: Other figures for the log, by name.
    """

    total: torch.Tensor
    by_kind: torch.Tensor
    counts_by_kind: torch.Tensor
    mean: torch.Tensor | None = None
    figures: dict[str, torch.Tensor] = field(default_factory=dict)


def language_model_loss(
    model: MM1ForConditionalGeneration,
    processor: MM1Processor,
    batch: Batch,
    z_loss: float = 0.0,
    run_vision: bool = False,
) -> Losses:
    """Run the model on a micro-batch and sum the cross entropy of its target tokens.

    Args:
        model: The model; it computes logits for target tokens only.
        processor: Normalises the pixels.
        batch: The micro-batch, on the model's device.
        z_loss: Weight of the squared log-partition, for stability (recalled for MM1-30B: 1e-4).
        run_vision: Whether the vision tower must run even if this batch has no images, because another rank's has some.
    """
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "position_ids", "target_positions")}
    inputs |= Borders(batch["document_borders"], batch["longest_document"]).arguments()
    pixels = batch["pixel_values"]
    if len(pixels) == 0 and run_vision:
        pixels = pixels.new_zeros(1, *pixels.shape[1:])
    if len(pixels):
        inputs["pixel_values"] = processor.normalize(pixels)
        inputs["image_positions"] = batch["image_positions"]
    output = model(**inputs, use_cache=False)
    logits = output.logits.float()
    losses = F.cross_entropy(logits, batch["target_ids"], reduction="none")
    kinds = batch["target_kinds"]
    empty = torch.zeros(len(KINDS), device=losses.device)
    by_kind = empty.index_add(0, kinds, losses.detach())
    counts_by_kind = empty.index_add(0, kinds, torch.ones_like(losses.detach()))
    total = losses.sum()
    if z_loss:
        total = total + z_loss * logits.logsumexp(-1).square().sum()
    routing = output.routing
    if routing is None:
        return Losses(total, by_kind, counts_by_kind)
    figures = {
        "router/balance": routing.balance.detach(),
        "router/z": routing.z.detach(),
        "router/largest_load": routing.load.max().detach(),
        "router/smallest_load": routing.load.min().detach(),
        **{f"router/load/{expert}": load for expert, load in enumerate(routing.load.detach().mean(0))},
    }
    return Losses(total, by_kind, counts_by_kind, routing.loss, figures)
