"""Whether a folder is a whole MM1 model: its settings are ours, its processor loads, its weights are all there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mm1.errors import UserError, in_one_line
from mm1.model import MM1Config, MM1ForConditionalGeneration
from mm1.model.tensor_files import TensorFiles
from mm1.processing.processor import MM1Processor


def check_whole(folder: Path, name: str) -> MM1Processor:
    """Check that a folder is a whole MM1 model, without reading its weights.

    Args:
        folder: The model's folder.
        name: What to call it in messages.

    Returns:
        Its processor.

    Raises:
        UserError: If it isn't; what is missing or wrong is named.
    """
    kind = _settings(folder / "config.json", name).get("model_type")
    if kind != MM1Config.model_type:
        raise UserError(
            f"{name}: a model of type '{kind}', and only MM1 models are pushed and pulled: name another one"
        )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.safetensors.index.json")):
        raise UserError(
            f"{name}: it has no weights in safetensors, and mm1 reads no others (pickle can run code): have it saved "
            "with save_pretrained"
        )
    try:
        config = MM1Config.from_pretrained(folder)
        processor = MM1Processor.from_pretrained(folder)
        with torch.device("meta"):
            model = MM1ForConditionalGeneration(config)
    except Exception as error:  # the library raises many kinds for files that are missing or damaged
        raise UserError(f"{name}: not a whole model ({in_one_line(error)}): pull or export it again") from None
    _check_tensors(folder, name, model)
    return processor


def _settings(file: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError:
        raise UserError(f"{name}: not a model (no config.json): name a run or a model's folder") from None
    except ValueError as error:
        raise UserError(f"{name}: its config.json is damaged ({error}): pull or export it again") from None
    return content if isinstance(content, dict) else {}


def _check_tensors(folder: Path, name: str, model: torch.nn.Module) -> None:
    """Check that every parameter is in the files, with its shape; the files are opened, so a cut one is found."""
    found: dict[str, list[int]] = {}
    for file in sorted({TensorFiles(folder).folder / path for path in _weight_files(folder)}):
        try:
            with safe_open(file, "pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a mapping
                    found[key] = list(opened.get_slice(key).get_shape())
        except (OSError, SafetensorError) as error:
            raise UserError(f"{name}: {file.name} is missing or damaged ({error}): pull or export it again") from None
    tied = set(getattr(model, "all_tied_weights_keys", {}) or {})
    wanted = {key: list(tensor.shape) for key, tensor in model.state_dict().items() if key not in tied}
    for key, shape in wanted.items():
        if found.get(key) != shape:
            there = f"has shape {found[key]}, not {shape}" if key in found else "is missing"
            raise UserError(f"{name}: not a whole model: the weight {key} {there}: pull or export it again")


def _weight_files(folder: Path) -> list[str]:
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        return sorted(set(json.loads(indexes[0].read_text())["weight_map"].values()))
    return [path.name for path in folder.glob("*.safetensors")]


def count_parameters(tensors: TensorFiles) -> int:
    """Return how many parameters a model's files hold."""
    return sum(math.prod(tensors.shape(name)) for name in tensors.names)
