"""The losses of a micro-batch, and the language model's loss per kind of document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from mm1.document import KINDS
from mm1.model import MM1ForConditionalGeneration
from mm1.model.borders import Borders
from mm1.model.loss import NO_TARGET
from mm1.model.sparse import expert_ranks
from mm1.plan.loader import Batch
from mm1.processing.processor import MM1Processor

LOAD, RANK_LOAD = "router/load", "router/rank_load"


@dataclass
class Losses:
    """Sums of the loss over a micro-batch's terms (target tokens, or pictures).

    Attributes:
        total: Scalar to differentiate: the sum of the losses.
        by_kind: (len(KINDS),) detached sums of the loss, by kind of document.
        counts_by_kind: (len(KINDS),) number of terms in each sum.
        mean: Scalar to differentiate that is already a mean over the micro-batch (the routers' losses), or None.
        figures: Other figures for the log, by name: scalars, and tables `(layers, places)` of the share of the routers'
            choices that goes to each expert (`LOAD`) or rank (`RANK_LOAD`).
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
        model: The model; it computes logits for target tokens only, and never many of them at once.
        processor: Normalises the pixels.
        batch: The micro-batch, on the model's device.
        z_loss: Weight of the squared log-partition, for stability (recalled for MM1-30B: 1e-4).
        run_vision: Whether the vision tower must run even if this batch has no images, because another rank's has some.
    """
    names = ("input_ids", "position_ids", "target_positions", "target_ids")
    inputs: dict[str, Any] = {name: batch[name] for name in names}  # type: ignore[literal-required]  # those of a batch
    inputs |= Borders(batch["document_borders"], batch["longest_document"]).arguments()
    pixels = batch["pixel_values"]
    if len(pixels) == 0 and run_vision:
        pixels = pixels.new_zeros(1, *pixels.shape[1:])
    if len(pixels):
        inputs["pixel_values"] = processor.normalize(pixels)
        inputs["image_positions"] = batch["image_positions"]
    output = model(**inputs, z_loss=z_loss, use_cache=False)
    total, losses = output.loss_sum, output.target_losses
    kinds, counted = batch["target_kinds"], (batch["target_ids"] != NO_TARGET).float()
    empty = torch.zeros(len(KINDS), device=losses.device)
    by_kind = empty.index_add(0, kinds, losses.float())
    counts_by_kind = empty.index_add(0, kinds, counted)
    routing = output.routing
    if routing is None:
        return Losses(total, by_kind, counts_by_kind)
    load = routing.load.detach()
    figures = {"router/balance": routing.balance.detach(), "router/z": routing.z.detach(), LOAD: load}
    if (ranks := expert_ranks(model.model.language_model)) > 1:
        figures[RANK_LOAD] = load.unflatten(1, (ranks, -1)).sum(-1)
    return Losses(total, by_kind, counts_by_kind, routing.loss, figures)
