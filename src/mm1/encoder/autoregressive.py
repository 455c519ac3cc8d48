"""AIM: a tower that predicts patches in reading order (arXiv 2401.08541).

    patches 1..K --tower, prefix attention--> features --MLP head--> patch k+1 from the features of patch k

The first S patches of a picture, its prefix, attend to each other; a later patch attends to the patches before it. S is
drawn for every picture, and the loss is on the patches after the prefix, so the tower can be used without a mask. The
tower is a CLIP-type ViT as elsewhere in mm1. Unlike AIM's, it has learned positions, biases and a CLS token, which
counts as part of the prefix (it attends to the prefix, and all patches attend to it).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel

_EPSILON = 1e-6
"""Added to a patch's variance, as in masked autoencoders (arXiv 2111.06377), whose targets AIM uses."""


class AutoregressiveEncoder(nn.Module):
    """A vision tower with the head that predicts pixels.

    Args:
        tower: A CLIP-type ViT; its attention must support masks (`sdpa`, `eager`).
        head_depth: Number of MLP blocks in the head.
    """

    def __init__(self, tower: CLIPVisionModel, head_depth: int) -> None:
        super().__init__()
        config: Any = tower.config
        self.tower, self.patch_size = tower, config.patch_size
        self.head = nn.Sequential(
            *(MLPBlock(config.hidden_size) for _ in range(head_depth)),
            nn.LayerNorm(config.hidden_size),
            nn.Linear(config.hidden_size, 3 * config.patch_size**2),
        )

    def forward(self, pixel_values: torch.Tensor, terms: torch.Tensor) -> torch.Tensor:
        """Return (N,) summed losses of each picture's last patches.

        Args:
            pixel_values: (N, 3, H, W) normalised pixels.
            terms: (N,) number of predicted patches; the others are the prefix.
        """
        targets = patch_targets(pixel_values, self.patch_size)
        patches = targets.shape[1]
        # The mask has the weights' dtype: on CPUs without AVX-512 a float32 mask makes float64 attention wrong
        # (torch 2.13).
        mask = prefix_mask(patches - terms, patches).to(self.tower.dtype)
        features = self.tower(pixel_values, attention_mask=mask).last_hidden_state
        # Without CLS, and without the last patch, which has no next patch to predict.
        predicted = self.head(self.tower.post_layernorm(features[:, 1:-1]))
        losses = (predicted.float() - targets[:, 1:]).square().mean(-1)
        after_prefix = torch.arange(1, patches, device=terms.device) >= (patches - terms)[:, None]
        return (losses * after_prefix).sum(1)


class MLPBlock(nn.Module):
    """A transformer's MLP with its norm and residual, without attention: it processes every patch separately."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape (N, patches, width)."""
        return features + self.mlp(self.norm(features))


def patch_targets(pixel_values: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Return (N, K, 3 * patch_size^2) pixels of each patch, scaled to mean 0 and variance 1; patches row by row.

    Args:
        pixel_values: (N, 3, H, W) pixels.
        patch_size: Side of a patch in pixels.
    """
    patches = nn.functional.unfold(pixel_values.float(), patch_size, stride=patch_size).transpose(1, 2)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + _EPSILON).sqrt()


def prefix_mask(prefix: torch.Tensor, patches: int) -> torch.Tensor:
    """Return the additive attention mask (N, 1, 1 + K, 1 + K): 0 where a token attends to another, -inf elsewhere.

    Args:
        prefix: (N,) number of patches in each picture's prefix.
        patches: K.
    """
    positions = torch.arange(patches + 1, device=prefix.device)
    last = torch.maximum(positions, prefix[:, None])  # the last position that each token attends to; CLS is at 0
    attended = positions <= last[:, :, None]
    return torch.zeros(attended.shape, device=prefix.device).masked_fill(~attended, float("-inf"))[:, None]
