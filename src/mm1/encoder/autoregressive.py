"""AIM: a tower that predicts patches in reading order (arXiv 2401.08541).

    patches 1..K --tower, prefix attention--> features --MLP head--> patch k+1 from what is known at patch k

The first S patches of a picture, its prefix, see one another; from there on a patch sees what came before it. S is
drawn anew for every picture and the loss is on the patches behind the prefix, so that the tower can be used
without any mask. The tower is a CLIP-type ViT as everywhere here: it keeps its CLS token, which counts as part of
the prefix (it sees the prefix and all see it), its learned positions and its biases, which AIM has not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel

_EPSILON = 1e-6
"""Added to a patch's variance (as masked autoencoders have it, arXiv 2111.06377, whose targets AIM's are)."""


class AutoregressiveEncoder(nn.Module):
    """A vision tower with the head that predicts pixels.

    Args:
        tower: A CLIP-type ViT; its attention must take masks (`sdpa`, `eager`).
        head_depth: MLP blocks of the head.
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
            pixel_values: (N, 3, H, W) normalised.
            terms: (N,) how many patches are predicted; the others are the prefix.
        """
        targets = patch_targets(pixel_values, self.patch_size)
        patches = targets.shape[1]
        # Of the weights' dtype: on CPUs without AVX-512 a float32 mask makes float64 attention wrong (torch 2.13).
        mask = prefix_mask(patches - terms, patches).to(self.tower.dtype)
        features = self.tower(pixel_values, attention_mask=mask).last_hidden_state
        # Without CLS, and without the last patch, which predicts nothing.
        predicted = self.head(self.tower.post_layernorm(features[:, 1:-1]))
        losses = (predicted.float() - targets[:, 1:]).square().mean(-1)
        behind = torch.arange(1, patches, device=terms.device) >= (patches - terms)[:, None]
        return (losses * behind).sum(1)


class MLPBlock(nn.Module):
    """A transformer's MLP with its norm and residual, and without attention: every patch on its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape (N, patches, width)."""
        return features + self.mlp(self.norm(features))


def patch_targets(pixel_values: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Return (N, K, 3 * patch_size^2) the pixels of each patch, of mean 0 and variance 1; patches row by row.

    Args:
        pixel_values: (N, 3, H, W).
        patch_size: Side of a patch in pixels.
    """
    patches = nn.functional.unfold(pixel_values.float(), patch_size, stride=patch_size).transpose(1, 2)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + _EPSILON).sqrt()


def prefix_mask(prefix: torch.Tensor, patches: int) -> torch.Tensor:
    """Return the additive attention mask (N, 1, 1 + K, 1 + K): 0 where a token is seen, -inf elsewhere.

    Args:
        prefix: (N,) how many patches each picture's prefix has.
        patches: K.
    """
    places = torch.arange(patches + 1, device=prefix.device)
    furthest = torch.maximum(places, prefix[:, None])  # that each token sees; CLS is at place 0
    seen = places <= furthest[:, :, None]
    return torch.zeros(seen.shape, device=prefix.device).masked_fill(~seen, float("-inf"))[:, None]
