"""ONNX, by the exporter of `transformers`: three graphs, which ONNX Runtime runs.

    image_features.onnx   pixel_values (N, 3, S, S)              -> the images' tokens (N, tokens per image, D)
    embed_tokens.onnx     input (B, L)                           -> embeddings (B, L, D)
    decoder.onnx          inputs_embeds (B, L, D), the cache     -> logits (B, L, V), the cache

Tokens of images take the places of the embeddings of image tokens in between. The decoder starts with an empty cache.
`transformers.exporters.ExportedModel.from_pretrained` loads the folder; `export.json` names inputs and outputs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.utils import is_onnxruntime_available, is_onnxscript_available
from transformers.utils import logging as transformers_logging

from mm1.errors import UserError
from mm1.export.check import compare, load, sample_batch


class _ImageFeatures(nn.Module):
    """Tower and connector as one graph."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.model.get_image_features(pixel_values).pooler_output
        return tokens


def write_onnx(source: Path, folder: Path) -> str:
    """Write a model to a folder as ONNX graphs, in float32.

    Args:
        source: A folder of an MM1.
        folder: An existing, empty folder.

    Returns:
        The largest difference of logits, of ONNX Runtime against the model, in a sentence.

    Raises:
        UserError: If the packages are missing, or the logits differ.
    """
    if not (is_onnxscript_available() and is_onnxruntime_available()):
        raise UserError("--to onnx needs onnx, onnxscript and onnxruntime: pip install 'mm1[export]'")
    from transformers.exporters import ExportedModel

    model, processor = load(source)
    texts, pictures = sample_batch()
    batch = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    with torch.no_grad(), _quiet():
        _export(model, batch).save_pretrained(folder)
        processor.save_pretrained(folder)
        wanted = model(**batch).logits
        found = _logits(ExportedModel.from_pretrained(folder).runners, model.config, batch)
    real = batch["attention_mask"].bool()
    return compare(found[real], wanted[real])


def _export(model: Any, batch: Any) -> Any:
    from transformers.exporters import ExportedModel
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    exporter, config = OnnxExporter(), OnnxConfig(dynamic=True)
    parts: dict[str, tuple[Any, dict[str, Any]]] = {
        "image_features": (_ImageFeatures(model), {"pixel_values": batch["pixel_values"]}),
        "embed_tokens": (model.get_input_embeddings(), {"input": batch["input_ids"]}),
        "decoder": (model, _two_steps(model, batch)),
    }
    components = {
        name: exporter.export(part, inputs, config).components["model"] for name, (part, inputs) in parts.items()
    }
    return ExportedModel(components, exporter.export_format, model.config, model.generation_config)


def _two_steps(model: Any, batch: Any) -> dict[str, Any]:
    """Return the decoder's inputs for two tokens after others: no size is 1 or 0, so each stays free in the graph."""
    known = model(**batch, use_cache=True)
    tokens = known.logits[:, -2:].argmax(-1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(tokens)], 1)
    return _decoder_inputs(model.get_input_embeddings()(tokens), mask, known.past_key_values)


def _decoder_inputs(embeds: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> dict[str, Any]:
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
    return {
        "inputs_embeds": embeds,
        "attention_mask": mask,
        "position_ids": positions,
        "past_key_values": cache,
        "use_cache": True,
        "return_dict": True,
    }


def _logits(runners: Any, config: Any, batch: Any) -> torch.Tensor:
    """Return the logits of a batch from the three graphs, half of its tokens at a time."""
    ids, mask, text = batch["input_ids"], batch["attention_mask"], config.get_text_config()
    embeds = runners["embed_tokens"](input=ids)
    images = runners["image_features"](pixel_values=batch["pixel_values"])
    embeds[ids == config.image_token_id] = images.flatten(0, 1)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    empty = torch.zeros(len(ids), text.num_key_value_heads, 0, head)
    cache = DynamicCache([(empty, empty)] * text.num_hidden_layers)
    half, logits = ids.shape[1] // 2, []
    for start, end in ((0, half), (half, ids.shape[1])):
        found = runners["decoder"](**_decoder_inputs(embeds[:, start:end], mask[:, :end], cache))
        logits.append(found["logits"])
        cache = found["past_key_values"]
    return torch.cat(logits, 1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own reports of their progress off the screen; errors are raised all the same."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        transformers_logging.set_verbosity(level)
