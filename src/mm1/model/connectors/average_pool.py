"""Average pooling: the patch grid is averaged to the token grid, then projected (paper sec. 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config


class AveragePool(nn.Module):
    """Adaptive average pooling to a square of tokens, then one linear layer.

    The pooling is adaptive because grids need not divide: 27 x 27 patches (378 px / 14) become
    12 x 12 tokens.
    """

    def __init__(self, config: MM1Config) -> None:
        super().__init__()
        self.patch_grid = config.patch_grid
        self.pool = nn.AdaptiveAvgPool2d(config.token_grid)
        self.project = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches `(N, grid^2, vision width)` to tokens `(N, tokens, decoder width)`."""
        plane = patches.transpose(1, 2).unflatten(2, (self.patch_grid, self.patch_grid))
        return self.project(self.pool(plane).flatten(2).transpose(1, 2))
