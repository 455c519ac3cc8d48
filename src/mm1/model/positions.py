"""Position embeddings for another resolution (paper sec. 4: 448, 560, 672 px in fine-tuning)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from mm1.errors import UserError
from mm1.model.convolutional import ConvolutionalTower, ConvolutionalTowerConfig

if TYPE_CHECKING:
    from mm1.model.modeling import MM1ForConditionalGeneration

ANTIALIASED = frozenset({"dinov2_with_registers"})
"""Model types whose own library antialiases. Torch takes another cubic with it, so enlarging differs as well."""


def resize_table(table: torch.Tensor, side: int, antialias: bool = False) -> torch.Tensor:
    """Interpolate a square table of position embeddings, bicubic, as the ViT libraries do.

    Args:
        table: `(old side^2, D)`, row by row.
        side: The new side.
        antialias: Whether to low-pass before shrinking.

    Returns:
        `(side^2, D)` in the table's dtype; the very same values where the side does not change.
    """
    old = math.isqrt(len(table))
    if old == side:
        return table.clone()
    plane = table.float().T.reshape(1, -1, old, old)  # half precision shifts the result
    plane = F.interpolate(plane, (side, side), mode="bicubic", align_corners=False, antialias=antialias)
    return plane[0].flatten(1).T.to(table.dtype).contiguous()


def resize_positions(table: torch.Tensor, old_side: int, side: int, antialias: bool = False) -> torch.Tensor:
    """Interpolate a tower's table of position embeddings, whose special tokens (CLS, registers) come first.

    Args:
        table: `(special tokens + old_side^2, D)`.
        old_side: The side of the table in patches.
        side: The new side.
        antialias: See `resize_table`.

    Returns:
        `(special tokens + side^2, D)`.
    """
    special = len(table) - old_side**2
    return torch.cat([table[:special], resize_table(table[special:], side, antialias)])


def check_image_size(config: PreTrainedConfig, image_size: int) -> None:
    """Check that a tower takes images of a size.

    Args:
        config: The tower's configuration.
        image_size: Side in pixels.

    Raises:
        UserError: If it isn't a multiple of the patch or the stride.
    """
    patch: int = config.patch_size
    if image_size % patch:
        unit = "stride" if isinstance(config, ConvolutionalTowerConfig) else "patch size"
        below = image_size // patch * patch
        near = f"{below} or {below + patch}" if below else str(patch)
        raise UserError(
            f"model.vision.image_size: {image_size} is not a multiple of the {unit} {patch}: set it to {near}"
        )


@torch.no_grad()
def resize_tower(tower: PreTrainedModel, image_size: int, antialias: bool | None = None) -> None:
    """Make a tower take images of another size, in place.

    Args:
        tower: A CLIP, SigLIP, DINOv2 (with or without registers) or AIMv2 vision model, or a convolutional tower,
            which has no positions to interpolate.
        image_size: The new side in pixels.
        antialias: Default: as the tower's own library does it.

    Raises:
        UserError: If the size is not a multiple of the patch, or the tower has no table that is known here.
    """
    config: Any = tower.config
    check_image_size(config, image_size)
    if isinstance(tower, ConvolutionalTower):
        config.image_size = image_size
        return
    embeddings: Any = tower.embeddings
    if antialias is None:
        antialias = config.model_type in ANTIALIASED
    side = image_size // config.patch_size

    def resized(table: torch.Tensor) -> torch.Tensor:
        return resize_positions(table, config.image_size // config.patch_size, side, antialias)

    has_table = isinstance(getattr(embeddings, "position_embedding", None), nn.Embedding)
    if has_table:
        old = embeddings.position_embedding.weight
        new = resized(old)
        embeddings.position_embedding = nn.Embedding(len(new), new.shape[1], device=old.device, dtype=old.dtype)
        embeddings.position_embedding.weight.copy_(new)
        embeddings.position_embedding.weight.requires_grad_(old.requires_grad)
    elif isinstance(getattr(embeddings, "position_embeddings", None), nn.Parameter):
        old = embeddings.position_embeddings
        embeddings.position_embeddings = nn.Parameter(resized(old[0])[None], old.requires_grad)
    elif not getattr(config, "is_native", False):  # AIMv2's sine positions need no table
        raise UserError(
            f"the position embedding of '{config.model_type}' can't be interpolated here: keep its image size "
            f"{config.image_size}"
        )
    if hasattr(embeddings, "position_ids"):
        positions = len(embeddings.position_embedding.weight) if has_table else side**2
        embeddings.position_ids = torch.arange(positions, device=embeddings.position_ids.device)[None]
    _set_sizes(embeddings, image_size, side)
    config.image_size = image_size


def resize_images(model: MM1ForConditionalGeneration, image_size: int, antialias: bool | None = None) -> None:
    """Make a whole model take images of another size, in place: tower, connector and configuration.

    The number of tokens per image stays, except with the connector `mlp`, which makes one of each patch.

    Args:
        model: The model.
        image_size: The new side in pixels.
        antialias: Default: as the tower's own library does it.

    Raises:
        UserError: See `resize_tower`.
    """
    resize_tower(model.model.vision_tower, image_size, antialias)
    model.config.vision_config.image_size = image_size
    side = model.config.patch_grid
    connector: Any = model.model.connector
    table = getattr(connector, "positions", None)
    if table is not None:
        with torch.no_grad():
            connector.positions = nn.Parameter(resize_table(table, side), table.requires_grad)
    if hasattr(connector, "patch_grid"):
        connector.patch_grid = side
    if model.config.connector == "mlp":
        model.config.image_seq_length = side**2


def _set_sizes(embeddings: Any, image_size: int, side: int) -> None:
    """Set what the towers' modules remember of the image's size."""
    if hasattr(embeddings, "patch_embeddings"):  # DINOv2
        patches = embeddings.patch_embeddings
        patches.image_size = (image_size, image_size)
        patches.num_patches = side**2
    if hasattr(embeddings, "image_size"):  # CLIP, SigLIP
        embeddings.image_size = image_size
        embeddings.num_patches = side**2
        embeddings.num_positions = len(embeddings.position_embedding.weight)
