"""Vision-language connectors: from a tower's patches to the decoder's tokens. One file each.

Every connector is built from an `MM1Config` and maps `(N, patches, vision width)` to
`(N, tokens per image, decoder width)`. A new one is a new file, a line in `mm1.model.configuration.CONNECTORS` and a
class in the list here.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mm1.model.configuration import CONNECTORS, MM1Config
from mm1.model.connectors.attention_pool import AttentionPool
from mm1.model.connectors.average_pool import AveragePool
from mm1.model.connectors.c_abstractor import CAbstractor
from mm1.model.connectors.mlp import MLP

_CLASSES: dict[str, Any] = {cls.__name__: cls for cls in (AttentionPool, AveragePool, CAbstractor, MLP)}


def build_connector(config: MM1Config) -> nn.Module:
    """Build the connector that a configuration names, with fresh weights."""
    connector: nn.Module = _CLASSES[CONNECTORS[config.connector]](config)
    return connector
