"""Contrastive learning: two towers, and the losses that make the features of a picture and its caption similar.

    picture --vision tower, projection--> (N, D) --gathered over the ranks--.
                                                                             >-- (N, N) similarities --> loss
    caption --text tower, projection----> (N, D) --gathered over the ranks--'

The losses compare all pairs of the batch over all ranks; gradients flow back through the gather.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.nn.functional import all_gather
from transformers import CLIPModel

from mm1.recipe import ObjectiveRecipe
from mm1.train.parallel import World
from mm1.train.sharding import full_tensor

TEMPERATURES = {"clip": 0.07, "siglip": 0.1}
"""Initial temperatures (arXiv 2103.00020 sec. 2.5; 2303.15343 sec. 3.2)."""


class Temperature(nn.Module):
    """The learned scale (and, for the sigmoid loss, bias) from similarities to logits.

    Args:
        scale: Initial 1 / temperature.
        bias: Initial bias; None: no bias.
        max_scale: Largest scale that `clamp` allows.
    """

    def __init__(self, scale: float, bias: float | None, max_scale: float) -> None:
        super().__init__()
        # Tensors of one element, since scalars can't be sharded.
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))
        self.bias = None if bias is None else nn.Parameter(torch.tensor([bias]))
        self.max_scale = max_scale

    @torch.no_grad()
    def clamp(self) -> None:
        """Limit the scale to its maximum after an optimizer step."""
        self.log_scale.clamp_(max=math.log(self.max_scale))

    def scale(self) -> torch.Tensor:
        """Return the scale as a detached scalar; all ranks must call this."""
        return full_tensor(self.log_scale.detach()).exp().squeeze()

    def forward(self, similarities: torch.Tensor) -> torch.Tensor:
        """Return logits of similarities of any shape."""
        logits = similarities * self.log_scale.exp()
        return logits if self.bias is None else logits + self.bias


class ContrastiveEncoder(nn.Module):
    """A CLIP model with its loss.

    Args:
        clip: The towers and projections; `temperature` holds its scale until `finish` restores it.
        objective: Gives the loss.
        world: The ranks, whose batches form one.
    """

    def __init__(self, clip: CLIPModel, objective: ObjectiveRecipe, world: World) -> None:
        super().__init__()
        sigmoid = objective.kind == "siglip"
        pretrained = clip.name_or_path
        scale = 1 / (objective.temperature or TEMPERATURES[objective.kind])
        if pretrained and objective.temperature is None:
            scale = clip.logit_scale.exp().item()
        bias = getattr(clip.config, "logit_bias", objective.bias) if sigmoid else None
        self.temperature = Temperature(scale, bias, objective.max_scale)
        del clip.logit_scale
        self.clip, self.objective, self.world = clip, objective, world

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run both towers and compute the loss.

        Args:
            pixel_values: (n, 3, H, W) normalised pixels of this rank's pictures.
            input_ids: (n, T) captions.

        Returns:
            Scalar: this rank's part of the sum of all pictures' losses; (n,) detached losses of this rank's pictures.
        """
        images = self.clip.get_image_features(pixel_values=pixel_values).pooler_output
        texts = self.clip.get_text_features(input_ids=input_ids).pooler_output
        with torch.autocast(pixel_values.device.type, enabled=False):
            images, texts = F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)
            loss = sigmoid_loss if self.objective.kind == "siglip" else softmax_loss
            return loss(images, texts, self.temperature, self.world, local=self.objective.local_loss)

    def finish(self) -> CLIPModel:
        """Return the CLIP model with the learned scale; all ranks must call this."""
        self.temperature.clamp()
        self.clip.logit_scale = nn.Parameter(full_tensor(self.temperature.log_scale.detach()).reshape(()))
        self.clip.config.logit_scale_init_value = self.clip.logit_scale.item()
        if self.temperature.bias is not None:
            self.clip.config.logit_bias = full_tensor(self.temperature.bias.detach()).item()
        return self.clip


def gathered(rows: torch.Tensor, world: World) -> torch.Tensor:
    """Return the rows of all ranks in the ranks' order; gradients flow back to the ranks.

    Args:
        rows: (n, D), with the same n on every rank.
        world: The ranks.
    """
    return rows if world.size == 1 else torch.cat(all_gather(rows))


def softmax_loss(
    images: torch.Tensor, texts: torch.Tensor, temperature: nn.Module, world: World, *, local: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return CLIP's loss: a softmax over captions for each picture, and over pictures for each caption.

    Source: arXiv 2103.00020 fig. 3.

    Args:
        images: (n, D) unit features of this rank's pictures.
        texts: (n, D) unit features of their captions.
        temperature: Turns similarities into logits.
        world: The ranks; N = n times their number.
        local: Whether this rank computes only the 2 n N logits of its own rows, instead of all N^2.

    Returns:
        See `ContrastiveEncoder.forward`.
    """
    all_images, all_texts = gathered(images, world), gathered(texts, world)
    mine = torch.arange(len(images), device=images.device) + world.rank * len(images)
    if local:
        by_image, by_text = temperature(images @ all_texts.T), temperature(texts @ all_images.T)
        rows = (_cross_entropy(by_image, mine) + _cross_entropy(by_text, mine)) / 2
        return rows.sum(), rows.detach()
    logits = temperature(all_images @ all_texts.T)
    every = torch.arange(len(logits), device=images.device)
    rows = (_cross_entropy(logits, every) + _cross_entropy(logits.T, every)) / 2
    return rows.sum() / world.size, rows[mine].detach()


def sigmoid_loss(
    images: torch.Tensor, texts: torch.Tensor, temperature: nn.Module, world: World, *, local: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return SigLIP's loss: for every picture and caption, whether they belong together (arXiv 2303.15343 eq. 2).

    Args:
        images: (n, D) unit features of this rank's pictures.
        texts: (n, D) unit features of their captions.
        temperature: Turns similarities into logits.
        world: The ranks; N = n times their number.
        local: Whether this rank computes only the n N logits of its own pictures, instead of all N^2.

    Returns:
        See `ContrastiveEncoder.forward`.
    """
    mine = torch.arange(len(images), device=images.device) + world.rank * len(images)
    all_texts = gathered(texts, world)
    if local:
        rows = _pair_losses(temperature(images @ all_texts.T), mine)
        return rows.sum(), rows.detach()
    every = torch.arange(len(all_texts), device=images.device)
    rows = _pair_losses(temperature(gathered(images, world) @ all_texts.T), every)
    return rows.sum() / world.size, rows[mine].detach()


def _pair_losses(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return (n,) summed losses of the rows of (n, N) logits; `own` has the column of each row's own caption."""
    signs = torch.full_like(logits, -1).scatter_(1, own[:, None], 1)
    return -F.logsigmoid(signs * logits).sum(1)


def _cross_entropy(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, own, reduction="none")
