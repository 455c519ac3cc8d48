"""Whether a model in another format gives the same logits: two prompts with pictures through both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from mm1.errors import UserError
from mm1.model import MM1Config, MM1ForConditionalGeneration, MM1Processor
from mm1.model.pretrained import pretrained_config
from mm1.model.saved import load_processor, load_saved

LARGEST = 1e-3
"""Largest difference of logits, as a share of the largest logit, that arithmetic in another order may make."""


def load(folder: Path) -> tuple[Any, MM1Processor]:
    """Return the model of a folder in float32, in evaluation mode, and its processor.

    Raises:
        UserError: If it is no model of mm1, or no whole one.
    """
    if not isinstance(pretrained_config(folder, "model"), MM1Config):
        raise UserError(f"{folder} is no model of mm1 (model_type in config.json): only those are converted")
    model = load_saved(MM1ForConditionalGeneration, folder, str(folder), dtype=torch.float32).eval()
    model.requires_grad_(False)
    return model, load_processor(folder, str(folder))


def sample_batch() -> tuple[list[str], list[list[PILImage.Image]]]:
    """Return two texts, and the pictures of each, the same every time."""
    draw = np.random.default_rng(0)
    pictures = [PILImage.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((48, 64), (90, 30))]
    return ["<image> A picture of a", "<image>"], [[picture] for picture in pictures]


def compare(found: torch.Tensor, wanted: torch.Tensor) -> str:
    """Return what a check found, in a sentence.

    Args:
        found: Logits of the exported model.
        wanted: Logits of the model, of the same shape.

    Raises:
        UserError: If they differ by more than `LARGEST`.
    """
    if found.shape != wanted.shape:
        raise UserError(f"the exported model gives logits of shape {tuple(found.shape)} and not {tuple(wanted.shape)}")
    largest, scale = float((found - wanted).abs().max()), float(wanted.abs().max())
    sentence = f"largest difference of logits: {largest:.1e} (the largest logit: {scale:.1e})"
    if not largest <= LARGEST * scale:
        raise UserError(f"the exported model gives other logits ({sentence}): nothing was written")
    return f"checked on two prompts with pictures; {sentence}"
