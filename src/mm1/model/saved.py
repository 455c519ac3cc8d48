"""Saved models, loaded whole: a damaged file is one sentence, and no weight is left as it was drawn.

The library draws the weights that a folder lacks, reports them, and goes on: answers are then another model's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mm1.errors import UserError, in_one_line
from mm1.model.configuration import MM1Config
from mm1.processing.processor import MM1Processor

_REMEDY = "copy, pull or export it again, or name another one"


def load_saved(kind: Any, folder: Path | str, name: str, **options: Any) -> Any:
    """Return the model of a folder with all of its weights.

    Args:
        kind: Its class, or one of the Auto classes.
        folder: The folder.
        name: What to call the model in messages.
        options: Of `from_pretrained`.

    Raises:
        UserError: If it can't be read, or lacks weights; its cause is what the library raised.
    """
    try:
        model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{name} can't be loaded ({in_one_line(error)}): {_REMEDY}") from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{name} lacks {len(missing)} of its tensors, the first is {missing[0]}: {_REMEDY}")
    return model


def load_processor(folder: Path | str, name: str) -> MM1Processor:
    """Return the processor of a folder.

    Raises:
        UserError: If there is none, or it can't be read.
    """
    try:
        processor: MM1Processor = MM1Processor.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises `Exception` itself for a damaged file
        raise UserError(f"{name} has no processor that can be loaded ({in_one_line(error)}): {_REMEDY}") from None
    return processor


def load_config(folder: Path | str, name: str) -> MM1Config:
    """Return the configuration of a folder that is a model of ours.

    Raises:
        UserError: If it can't be read.
    """
    try:
        config: MM1Config = MM1Config.from_pretrained(folder)
    except Exception as error:  # the library expects what it wrote, and raises nearly anything for something else
        raise UserError(f"{name} has a config.json that can't be used ({in_one_line(error)}): {_REMEDY}") from None
    return config


def model_type(folder: Path, name: str) -> str | None:
    """Return the type that a folder's `config.json` names; None if it names none.

    Raises:
        UserError: If the file can't be read.
    """
    try:
        content = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{name} has no config.json that can be read ({error}): {_REMEDY}") from None
    return content.get("model_type") if isinstance(content, dict) else None
