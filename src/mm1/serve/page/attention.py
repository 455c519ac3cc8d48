"""Which tokens an answer attended to while it was written.

    prompt ------- the model's own attention -----> cache
    last prompt token, answer ---- `eager` -------> weights, averaged over the answer's tokens, heads and layers

The prompt is computed without keeping weights: those of all its tokens would take gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache

from mm1.document import Document
from mm1.processing.answers import following
from mm1.serve.call import Call
from mm1.serve.inputs import MM1Inputs, too_long
from mm1.serve.problems import Problem

_ROWS = 32
"""Tokens of the answer that are computed at once."""


@torch.inference_mode()
def attention(inputs: MM1Inputs, document: Document, answer: str, call: Call) -> dict[str, Any]:
    """Return the attention of an answer's tokens to the tokens of the prompt's pictures, as JSON.

    The weights of a token are those at the place that predicts it. They are the decoder's, as softmax gives them, and
    add up to 1 over prompt and answer.

    Args:
        inputs: The model.
        document: The prompt.
        answer: Its answer; tokenized anew, which can differ from the tokens that were written.
        call: Ends the work when nobody waits for it any more.

    Returns:
        `pictures`: of each its `share`, the sum over its tokens, and its `images` with one weight a token in the order
        in which the decoder reads them. `grid`: tokens of an image's side where a token stands for a place of the
        image; None where the connector's tokens have no place. `text_share`: what went to text and to special tokens.
        `tokens`: of the answer.

    Raises:
        Problem: If prompt and answer are too long, or a picture can't be read.
    """
    model, processor = inputs.model, inputs.processor
    prompt = inputs.prepare(document)
    encoded = processor.encode(document, close=False)
    answered = _tokens(processor, following(processor, document, answer))
    total = prompt.length + len(answered)
    if total > inputs.max_context:
        raise too_long(total, inputs.max_context)
    given = inputs.batch([prompt])
    ids = torch.cat([given["input_ids"], torch.tensor([answered], device=model.device)], dim=1)
    embeddings = model.get_input_embeddings()(ids)
    if "pixel_values" in given:
        features = model.get_image_features(given["pixel_values"], return_dict=True).pooler_output.flatten(0, 1)
        embeddings[:, : prompt.length][given["input_ids"] == processor.image_token_id] = features.to(embeddings.dtype)
    weights = _weights(model, embeddings[:, :-1], prompt.length - 1, call).tolist()
    pictures = []
    for start, length in zip(encoded.image_starts.tolist(), encoded.image_lengths.tolist(), strict=True):
        own = weights[start : start + length]
        each = processor.tokens_per_image
        pictures.append(
            {
                "share": sum(own),
                "images": [[round(w, 8) for w in own[first : first + each]] for first in range(0, length, each)],
            }
        )
    config = model.config
    return {
        "pictures": pictures,
        "grid": None if config.connector == "attention_pool" else config.token_grid,
        "text_share": max(0.0, 1 - sum(picture["share"] for picture in pictures)),
        "tokens": len(answered),
    }


def _weights(model: Any, embeddings: torch.Tensor, first: int, call: Call) -> torch.Tensor:
    """Return the mean weights (T,) float64 that the tokens from `first` on give to each of `embeddings` (1, T, D)."""
    length = embeddings.shape[1]
    cache = DynamicCache(config=model.config)
    if first:
        model(inputs_embeds=embeddings[:, :first], past_key_values=cache, use_cache=True, logits_to_keep=1)
    total = torch.zeros(length, dtype=torch.float64)
    layers = 0
    with _eager(model):
        for start in range(first, length, _ROWS):
            if call.given_up.is_set():
                raise Problem(499, "the client has left")
            output = model(
                inputs_embeds=embeddings[:, start : start + _ROWS],
                past_key_values=cache,
                use_cache=True,
                output_attentions=True,
                logits_to_keep=1,
            )
            kept = [layer for layer in output.attentions if layer is not None]
            layers = len(kept)
            for layer in kept:  # (1, heads, rows, keys); a layer with a window has the last keys alone
                end = min(start + _ROWS, length)
                summed = layer[0].double().mean(dim=0).sum(dim=0).cpu()
                total[end - len(summed) : end] += summed
    return total / (layers * (length - first))


def _tokens(processor: Any, text: str) -> list[int]:
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Let the decoder compute attention in the way that returns its weights."""
    own = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation({"text_config": "eager"})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": own})
