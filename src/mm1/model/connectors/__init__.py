"""Vision-language connectors: from a tower's patches to the decoder's tokens. One file each.

Every connector is built from an `MM1Config` and maps `(N, patches, vision width)` to
`(N, tokens per image, decoder width)`. A new one is a new file and a line in `mm1.model.configuration.CONNECTORS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from torch import nn

from mm1.errors import UserError
from mm1.model.configuration import CONNECTORS

if TYPE_CHECKING:
    from mm1.model.configuration import MM1Config


def connector_class(name: str) -> type[nn.Module]:
    """Return the class of a connector.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in CONNECTORS:
        raise UserError(f"connector '{name}' is unknown: take one of {', '.join(sorted(CONNECTORS))}")
    module = importlib.import_module(f"mm1.model.connectors.{name}")
    connector: type[nn.Module] = getattr(module, CONNECTORS[name])
    return connector


def build_connector(config: MM1Config) -> nn.Module:
    """Build the connector that a configuration names, with fresh weights."""
    return connector_class(config.connector)(config)
