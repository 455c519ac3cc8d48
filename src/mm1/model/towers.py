"""Vision towers, from scratch or from weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, CLIPVisionConfig, PreTrainedConfig, PreTrainedModel
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from mm1.errors import UserError
from mm1.model.convolutional import CONVOLUTIONAL, convolutional_config, load_convolutional
from mm1.model.open_clip import find_open_clip, load_open_clip_tower, open_clip_vision_config
from mm1.model.positions import check_image_size, resize_tower
from mm1.model.pretrained import first_line, pretrained_config
from mm1.model.saved import load_saved
from mm1.recipe import VisionRecipe

KEY = "model.vision.from"

TOWERS = frozenset(
    {
        "clip_vision_model",
        "siglip_vision_model",
        "dinov2",
        "dinov2_with_registers",
        "aimv2_vision_model",
    }
)
"""Model types of the ViTs that are tested here. SigLIP 2 at a fixed resolution is of SigLIP's type. Those of
convolutional towers are in `mm1.model.convolutional`."""


def scratch_tower(recipe: VisionRecipe) -> CLIPVisionConfig:
    """Return the configuration of a CLIP-type ViT from scratch.

    Raises:
        UserError: If the sizes do not fit each other.
    """
    for large, small in (("image_size", "patch_size"), ("hidden_size", "num_heads")):
        if getattr(recipe, large) % getattr(recipe, small):
            raise UserError(
                f"model.vision: {large} {getattr(recipe, large)} is not a multiple of {small} {getattr(recipe, small)}"
            )
    return CLIPVisionConfig(
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        intermediate_size=recipe.intermediate_size or 4 * recipe.hidden_size,
        hidden_act="gelu",
    )


def load_tower(source: str, image_size: int | None = None) -> PreTrainedModel:
    """Load a pre-trained tower in float32, without the heads that patches do not pass.

    Args:
        source: A folder: of a vision model, of a two-tower model (CLIP, SigLIP, AIMv2), whose vision half is
            taken, of a convolutional network, or of an open_clip checkpoint, which is converted.
        image_size: Side of the images it will get, to which its position embedding is interpolated as its own
            library does it (open_clip antialiases); None: its own, of a convolutional one
            `mm1.model.convolutional.IMAGE_SIZE`.

    Raises:
        UserError: If there is no tower, or one that can't be used here.
    """
    open_clip = find_open_clip(source)
    model = _load_transformers(source) if open_clip is None else load_open_clip_tower(open_clip)
    convolutional = model.config.model_type in CONVOLUTIONAL
    tower = load_convolutional(model, source) if convolutional else _without_heads(model, source)
    if image_size is not None:
        resize_tower(tower, image_size, antialias=True if open_clip else None)
    return tower


def tower_config(source: str, image_size: int | None = None) -> PreTrainedConfig:
    """Return the configuration of the tower that `load_tower` would load; no weights are read.

    Args:
        source: As of `load_tower`.
        image_size: Likewise.

    Raises:
        UserError: If there is no tower, or one that can't be used here.
    """
    open_clip = find_open_clip(source)
    config: PreTrainedConfig
    if open_clip is None:
        whole = pretrained_config(source, KEY)
        if whole.model_type in CONVOLUTIONAL:
            config = convolutional_config(whole, source)
        else:
            config = _bare_config(getattr(whole, "vision_config", whole), source)
    else:
        config = open_clip_vision_config(open_clip)
    if image_size is not None:
        check_image_size(config, image_size)
        config.image_size = image_size
    return config


def pixel_statistics(source: str | None) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation per channel that a tower's pixels are normalised with.

    Args:
        source: As of `load_tower`; None for a tower from scratch, which takes CLIP's.

    Returns:
        Of values scaled to 0..1: what the checkpoint says, else what its family is trained with.

    Raises:
        UserError: If there is no tower, or its statistics can't be read.
    """
    if source is None:
        return OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    open_clip = find_open_clip(source)
    files = [Path(source) / name for name in ("preprocessor_config.json", "processor_config.json")]
    file = open_clip or next((file for file in files if file.is_file()), None)
    if file is not None:
        try:
            content = json.loads(file.read_text())
            content = content.get("preprocess_cfg" if open_clip else "image_processor", {} if open_clip else content)
            mean, std = (content.get(f"image_{name}", content.get(name)) for name in ("mean", "std"))
        except (ValueError, AttributeError) as error:
            raise UserError(f"{file}: is not valid JSON of a checkpoint ({first_line(error)})") from None
        if mean and std:
            return mean, std
    config: Any = None if open_clip else pretrained_config(source, KEY)
    family = "clip" if config is None else config.model_type
    if family == "timm_wrapper" and config.pretrained_cfg:
        return config.pretrained_cfg["mean"], config.pretrained_cfg["std"]
    if family.startswith("siglip"):
        return IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
    if family.startswith("dinov2") or family in CONVOLUTIONAL:
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


def _load_transformers(source: str) -> PreTrainedModel:
    config = pretrained_config(source, KEY)
    model = load_saved(AutoModel, source, f"{KEY}: '{source}'", config=config, dtype=torch.float32)
    tower: PreTrainedModel | None = getattr(model, "vision_model", None) if hasattr(config, "vision_config") else model
    if tower is None:
        raise UserError(f"{KEY}: '{source}' is a {config.model_type}, whose vision tower can't be taken out")
    return tower


def _without_heads(tower: PreTrainedModel, source: str) -> PreTrainedModel:
    """Rebuild a tower without pooling heads and mask tokens, which would never get a gradient."""
    bare: PreTrainedModel = AutoModel.from_config(_bare_config(tower.config, source))
    wanted = bare.state_dict()
    bare.load_state_dict({n: t for n, t in tower.state_dict().items() if n in wanted})
    return bare


def _bare_config(whole: PreTrainedConfig, source: str) -> PreTrainedConfig:
    if whole.model_type not in TOWERS:
        known = ", ".join(sorted(TOWERS | CONVOLUTIONAL))
        raise UserError(f"{KEY}: '{source}' is a {whole.model_type}: take one of {known}")
    config = type(whole).from_dict(whole.to_dict())
    # Some families write sizes as pairs.
    for name in ("image_size", "patch_size"):
        value = getattr(config, name)
        if isinstance(value, list | tuple):
            if len(set(value)) > 1:
                raise UserError(f"the vision tower's {name} {list(value)} is not square")
            setattr(config, name, value[0])
    for switch in ("vision_use_head", "use_head", "use_mask_token"):
        if hasattr(config, switch):
            setattr(config, switch, False)
    return config
