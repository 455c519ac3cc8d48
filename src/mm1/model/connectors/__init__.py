"""Vision-language connectors: from a tower's patches to the decoder's tokens. One file each.

Every connector is built from an `MM1Config` and maps `(N, patches, vision width)` to
`(N, tokens per image, decoder width)`. A new one is a new file and a line in `CONNECTORS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from mm1.model.connectors.attention_pool import AttentionPool
from mm1.model.connectors.average_pool import AveragePool
from mm1.model.connectors.c_abstractor import CAbstractor
from mm1.model.connectors.mlp import MLP

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config

CONNECTORS: dict[str, Any] = {
    "average_pool": AveragePool,
    "attention_pool": AttentionPool,
    "c_abstractor": CAbstractor,
    "mlp": MLP,
}
"""Class of each connector, by its name in a recipe."""


def build_connector(config: MM1Config) -> nn.Module:
    """Build the connector that a configuration names, with fresh weights."""
    connector: nn.Module = CONNECTORS[config.connector](config)
    return connector
