"""The MLP of LLaVA-1.5: every patch becomes one token. The baseline users know."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.activations import ACT2FN

from mm1.errors import UserError
from mm1.model.connectors.layers import Activated

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config


class MLP(nn.Module):
    """`connector_mlp_depth` linear layers on each patch, an activation between them (depth 1: linear)."""

    def __init__(self, config: MM1Config) -> None:
        super().__init__()
        if config.image_seq_length != config.patch_grid**2:
            raise UserError(
                f"the connector mlp makes one token of each patch, so {config.patch_grid**2} tokens per "
                f"image and not {config.image_seq_length}: change the number, or take a pooling connector"
            )
        hidden = config.text_config.hidden_size
        inner = config.connector_hidden_size or hidden
        widths = [config.vision_config.hidden_size, *[inner] * (config.connector_mlp_depth - 1), hidden]
        self.layers = nn.ModuleList(
            (Activated if number else nn.Linear)(*sizes) for number, sizes in enumerate(itertools.pairwise(widths))
        )
        self.activation = ACT2FN[config.connector_activation]

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches `(N, patches, vision width)` to tokens `(N, patches, decoder width)`."""
        hidden = self.layers[0](patches)
        for layer in self.layers[1:]:
            hidden = layer(self.activation(hidden))
        return hidden
