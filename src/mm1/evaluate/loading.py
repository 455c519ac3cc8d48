"""From a run or model directory to a generator."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from mm1.errors import UserError
from mm1.evaluate.generation import MM1Generator
from mm1.evaluate.ranks import own_device
from mm1.model import MM1ForConditionalGeneration
from mm1.processing.processor import MM1Processor

_CHUNK = 1 << 24


def model_directory(path: Path | str) -> Path:
    """Return the directory with the weights: a run's `model`, or the directory itself.

    Raises:
        UserError: If there is no model.
    """
    path = Path(path)
    for directory in (path / "model", path):
        if (directory / "config.json").is_file():
            return directory
    raise UserError(
        f"{path}: no model there (no config.json): give a run directory with a finished model, or a model directory"
    )


def load_generator(
    path: Path | str, *, batch_size: int = 64, device: str = "auto", dtype: str = "auto"
) -> MM1Generator:
    """Load a model for scoring.

    Args:
        path: A run directory or a model directory.
        batch_size: Prompts per forward pass; changes the speed, not the answers.
        device: `auto` (a GPU if there is one), or a torch device.
        dtype: `auto` (float32 on CPU, bfloat16 on GPU), or a torch dtype's name.

    Raises:
        UserError: If there is no model.
    """
    directory = model_directory(path)
    if device == "auto":
        device = own_device()
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    model = MM1ForConditionalGeneration.from_pretrained(directory, dtype=getattr(torch, dtype))
    processor = MM1Processor.from_pretrained(directory)
    return MM1Generator(model, processor, batch_size=batch_size, device=device)


def model_hash(path: Path | str) -> str:
    """Return a hash of the weights, the configuration and the processor of a run or model directory."""
    directory = model_directory(path)
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(f for pattern in ("*.safetensors", "*.json") for f in directory.glob(pattern)):
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
