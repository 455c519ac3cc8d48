"""What connectors share."""

from __future__ import annotations

from torch import nn


class Activated(nn.Linear):
    """A linear layer whose inputs come from an activation, which has halved their mean square; it is drawn larger."""
