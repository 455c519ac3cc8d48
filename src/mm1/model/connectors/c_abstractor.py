"""The C-Abstractor: convolutional blocks around an adaptive pooling (Honeybee, arXiv 2312.06742, sec. 3.2).

    patches -> + positions -> [block] x depth -> adaptive average pooling -> [block] x depth -> MLP -> tokens

The blocks are RegNet bottlenecks with squeeze-and-excitation (RegNetY, arXiv 2003.13678), with SiLU and layer
norm over channels in place of ReLU and batch norm, as Honeybee has them. MM1 does not disclose its depth and
width; the defaults are Honeybee's published configuration.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from mm1.model.connectors.layers import Activated

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config

HONEYBEE_WIDTH = 1024
SQUEEZE_RATIO = 0.25  # RegNetY: squeezed width over the block's input width
POSITION_STD = 0.02  # of fresh positions: Honeybee's


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of `(N, C, H, W)`."""

    def forward(self, plane: torch.Tensor) -> torch.Tensor:
        """Normalise each position; shape unchanged."""
        return super().forward(plane.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from the mean of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, plane: torch.Tensor) -> torch.Tensor:
        """Return the gated plane; shape unchanged."""
        mean = plane.mean((2, 3), keepdim=True)
        return plane * torch.sigmoid(self.expand(F.silu(self.reduce(mean))))


class Bottleneck(nn.Module):
    """RegNetY bottleneck of ratio 1: 1x1, depth-wise 3x3, squeeze-excitation, 1x1, and a shortcut.

    Depth-wise means groups of one channel, the default of the RegNet stage that Honeybee uses.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm1 = LayerNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm2 = LayerNorm2d(channels)
        self.excite = SqueezeExcitation(channels, max(1, round(in_channels * SQUEEZE_RATIO)))
        self.conv3 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm3 = LayerNorm2d(channels)
        same = in_channels == channels
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), LayerNorm2d(channels))
        )

    def forward(self, plane: torch.Tensor) -> torch.Tensor:
        """Map `(N, in_channels, H, W)` to `(N, channels, H, W)`."""
        hidden = F.silu(self.norm1(self.conv1(plane)))
        hidden = F.silu(self.norm2(self.conv2(hidden)))
        hidden = self.norm3(self.conv3(self.excite(hidden)))
        return F.silu(hidden + self.shortcut(plane))


class CAbstractor(nn.Module):
    """Blocks, adaptive average pooling, blocks, MLP: keeps the image's plane all the way."""

    def __init__(self, config: MM1Config) -> None:
        super().__init__()
        self.patch_grid = config.patch_grid
        vision, hidden = config.vision_config.hidden_size, config.text_config.hidden_size
        width = config.connector_hidden_size or HONEYBEE_WIDTH
        self.positions = nn.Parameter(torch.empty(self.patch_grid**2, vision)) if config.connector_positions else None
        self.before = _blocks(config.connector_depth, vision, width)
        self.pool = nn.AdaptiveAvgPool2d(config.token_grid)
        self.after = _blocks(config.connector_depth, width, width)
        sizes = [width, *[hidden] * config.connector_mlp_depth]
        # The blocks' last activation is of a sum of two normalised planes: its outputs have the features' scale.
        self.mlp = nn.ModuleList(
            (Activated if number else nn.Linear)(*widths) for number, widths in enumerate(itertools.pairwise(sizes))
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches `(N, grid^2, vision width)` to tokens `(N, tokens, decoder width)`."""
        if self.positions is not None:
            patches = patches + self.positions
        plane = patches.transpose(1, 2).unflatten(2, (self.patch_grid, self.patch_grid))
        plane = self.after(self.pool(self.before(plane)))
        hidden = self.mlp[0](plane.flatten(2).transpose(1, 2))
        for layer in self.mlp[1:]:
            hidden = layer(F.silu(hidden))
        return hidden


def _blocks(depth: int, in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels if i else in_channels, channels) for i in range(depth)))
