"""A tiny model with its processor and chat template, for libraries that train and serve models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoProcessor

from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import ModelRecipe

COLOURS = ["red", "green", "blue", "yellow"]
QUESTION = "which colour is it?"


def build(experts: int = 0) -> tuple[MM1ForConditionalGeneration, MM1Processor]:
    """Return a model with fresh weights and its processor; with experts, every other layer is sparse."""
    texts = [f"{QUESTION} it is {colour}" for colour in COLOURS] * 20
    tokenizer = train_tokenizer(texts, 400)
    processor = build_processor(tokenizer, image_size=16, tokens_per_image=4, chat_template=default_chat_template())
    recipe = ModelRecipe.model_validate(
        {
            "vision": {"image_size": 16, "patch_size": 4, "hidden_size": 64, "num_layers": 1, "num_heads": 2},
            "connector": {"kind": "average_pool", "num_tokens": 4},
            "language_model": {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "num_experts": experts},
        }
    )
    model = build_model(
        recipe,
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model, processor


def save(folder: Path, experts: int = 0) -> Path:
    """Write such a model and its processor into a folder."""
    model, processor = build(experts)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def load(folder: Path) -> tuple[Any, Any]:
    """Return the model and the processor of a folder, as users of the library load them."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(folder)


def picture(colour: str) -> PILImage.Image:
    """Return a picture of a colour."""
    return PILImage.new("RGB", (20, 20), colour)


def inputs(processor: MM1Processor, colours: list[str]) -> dict[str, torch.Tensor]:
    """Return a batch of prompts, each with a picture of its colour."""
    texts = [f"<image> {QUESTION}"] * len(colours)
    batch = processor(text=texts, images=[picture(c) for c in colours], return_tensors="pt", padding=True)
    return dict(batch)


def weights(model: Any) -> dict[str, np.ndarray]:
    """Return a copy of the weights, to compare them later."""
    return {name: tensor.detach().float().numpy().copy() for name, tensor in model.named_parameters()}
