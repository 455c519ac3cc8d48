"""Pre-trained parts in a model's folder: configurations, tensors, and what is wrong with them in a line."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig

from mm1.errors import UserError
from mm1.nearest import nearest_path


def pretrained_config(source: Path | str, key: str) -> PreTrainedConfig:
    """Return the configuration of a pre-trained model.

    Args:
        source: A model's folder.
        key: The recipe's key that named it, for the message.

    Raises:
        UserError: If there is no model.
    """
    if not Path(source).is_dir():
        raise UserError(f"{key}: '{source}' is no model: no such folder{nearest_path(source)}")
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: '{source}' is no model: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def renamed(tensors: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Return the tensors with every part of their names that is a key of `names` replaced, in its order."""
    result = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        result[name] = tensor
    return result
