"""Vision towers of open_clip checkpoints in safetensors (DFN-5B's ViT-H-14-378 is published so).

A folder or Hub repository of this format holds `open_clip_config.json` and `open_clip_model.safetensors`.
Its tower is CLIP's, so it becomes a `CLIPVisionModel`; only names differ, and that open_clip keeps the
query, key and value projections of a layer in one matrix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from mm1.errors import UserError
from mm1.model.pretrained import renamed

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""Names of the file of weights: open_clip's, and what the Hub's converter calls it."""
_TRANSFORMERS = ("model.safetensors", "model.safetensors.index.json")

_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.": "pre_layrnorm.",
    "ln_post.": "post_layernorm.",
    "transformer.resblocks.": "encoder.layers.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}


def find_open_clip(source: str) -> Path | None:
    """Return the configuration file of an open_clip checkpoint.

    Args:
        source: A folder.

    Returns:
        None if there is none there, or if the folder is also a checkpoint of `transformers` and the weights are not
        open_clip's alone.
    """
    folder = Path(source)
    if not (folder / CONFIG).is_file():
        return None
    both = (folder / "config.json").is_file()
    alone = weights_file(folder) is not None and not any((folder / name).is_file() for name in _TRANSFORMERS)
    return folder / CONFIG if alone or not both else None


def weights_file(folder: Path) -> Path | None:
    """Return the file with the weights of an open_clip checkpoint, if they are in safetensors."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def open_clip_vision_config(file: Path) -> CLIPVisionConfig:
    """Read the tower's shape from an `open_clip_config.json`.

    Raises:
        UserError: If the tower is not a plain ViT.
    """
    try:
        model = json.loads(file.read_text())["model_cfg"]
        vision: dict[str, Any] = model["vision_cfg"]
        if "timm_model_name" in vision:
            raise ValueError("a tower of timm")
        width = int(vision["width"])
        config = CLIPVisionConfig(
            hidden_size=width,
            num_hidden_layers=int(vision["layers"]),
            num_attention_heads=width // int(vision.get("head_width", 64)),
            intermediate_size=int(width * vision.get("mlp_ratio", 4.0)),
            patch_size=int(vision["patch_size"]),
            image_size=int(vision.get("image_size", 224)),
            projection_dim=model["embed_dim"],
            hidden_act="quick_gelu" if model.get("quick_gelu", False) else "gelu",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: describes no plain ViT that can be converted ({error}): take a tower in the format "
            "of transformers"
        ) from None
    return config


def load_open_clip_tower(file: Path) -> CLIPVisionModel:
    """Load the vision tower of an open_clip checkpoint, in float32.

    Args:
        file: Its `open_clip_config.json`; the weights lie beside it.

    Raises:
        UserError: If the weights are missing or of another layout.
    """
    weights = weights_file(file.parent)
    if weights is None:
        raise UserError(
            f"{file.parent}: there is no {' or '.join(WEIGHTS)}: only open_clip checkpoints in safetensors are read"
        )
    tensors = {
        name.removeprefix("visual."): tensor.float()
        for name, tensor in load_file(weights).items()
        if name.startswith("visual.") and name != "visual.proj"
    }
    tower = CLIPVisionModel(open_clip_vision_config(file))
    converted = convert(tensors)
    check_names(converted, tower, weights)
    tower.load_state_dict(converted)
    return tower


def check_names(names: Iterable[str], tower: CLIPVisionModel, weights: Path) -> None:
    """Check that converted tensors are those of a tower.

    Args:
        names: Of the converted tensors.
        tower: On any device.
        weights: Their file, for the message.

    Raises:
        UserError: If one is missing or too many.
    """
    if wrong := sorted(set(tower.state_dict()) ^ set(names)):
        raise UserError(f"{weights}: {len(wrong)} tensors do not fit a plain CLIP ViT, the first is {wrong[0]}")


def convert(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename open_clip's tensors of a vision tower to those of `CLIPVisionModel`.

    Args:
        tensors: Without the prefix `visual.`.
    """
    separate: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        joint = re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", name)
        if joint:
            layer, kind = joint.groups()
            for part, value in zip("qkv", tensor.chunk(3), strict=True):
                separate[f"encoder.layers.{layer}.self_attn.{part}_proj.{kind}"] = value.contiguous()
        else:
            separate[name] = tensor
    return renamed(separate, _NAMES)
