"""Attention pooling: learned queries, one per token, attend to all patches (paper sec. 3.2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from mm1.errors import UserError

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config


class AttentionPool(nn.Module):
    """One cross-attention layer from k learned queries to the patches, in the decoder's width.

    Any number of tokens is possible, since the result has no plane. The paper gives k (64 or 144) and not
    the inner layout: a normalisation before keys and values and a pre-norm MLP-free output are chosen here.

    Attributes:
        query_std: Standard deviation of fresh queries, sqrt(ln k). A token's scores then have variance ln k, and its
            weights are spread over exp(-ln k) of the patches (1 / sum of squares, for normal scores and many patches):
            over as large a share as in average pooling. Smaller queries would make the tokens alike, and much larger
            ones would take each from a single patch.
    """

    def __init__(self, config: MM1Config) -> None:
        super().__init__()
        vision, hidden = config.vision_config.hidden_size, config.text_config.hidden_size
        inner = config.connector_hidden_size or hidden
        self.num_heads = config.connector_num_heads or max(1, inner // 64)
        if inner % self.num_heads:
            raise UserError(
                f"attention pooling of width {inner} can't be split into {self.num_heads} heads: "
                "give a connector_num_heads that divides the width"
            )
        self.query_std = math.log(config.image_seq_length) ** 0.5
        self.queries = nn.Parameter(torch.empty(config.image_seq_length, inner))
        self.norm = nn.LayerNorm(vision)
        self.query = nn.Linear(inner, inner)
        self.key = nn.Linear(vision, inner)
        self.value = nn.Linear(vision, inner)
        self.project = nn.Linear(inner, hidden)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches `(N, patches, vision width)` to tokens `(N, tokens, decoder width)`."""
        patches = self.norm(patches)
        queries = self.query(self.queries).expand(len(patches), -1, -1)
        pooled = F.scaled_dot_product_attention(
            self._heads(queries), self._heads(self.key(patches)), self._heads(self.value(patches))
        )
        return self.project(pooled.transpose(1, 2).flatten(2))

    def _heads(self, hidden: torch.Tensor) -> torch.Tensor:
        """Split `(N, T, C)` into heads `(N, H, T, C / H)`."""
        return hidden.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
