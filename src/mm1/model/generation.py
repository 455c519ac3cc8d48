"""What `generate` has to know of pictures: that they are there, and which rows they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.generation import GenerationConfig, GenerationMixin

from mm1.errors import UserValueError
from mm1.model.configuration import MM1Config
from mm1.model.outputs import MM1ImageFeatures


class MM1GenerationMixin(GenerationMixin):
    """The library's generation. It encodes the pictures once, before the first step (`mm_encoder_outputs`)."""

    config: MM1Config
    # The library's own; it types `self` as a protocol, for a checker (ty) that is not mypy.
    generate: Callable[..., Any]

    def _maybe_prepare_encoder_kwargs_for_generation(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config: GenerationConfig,
    ) -> dict[str, Any]:
        """Encode the pictures, as the library does; an image token without any image is an error."""
        pixels = model_kwargs.get("pixel_values")
        if pixels is None or len(pixels) == 0:
            model_kwargs.pop("pixel_values", None)
            if not model_kwargs.get("mm_encoder_outputs"):
                given = {"input_ids": model_kwargs.get("input_ids")}
                given[model_input_name or "input_ids"] = inputs_tensor
                count = int(
                    self._new_image_tokens(given | {"past_key_values": model_kwargs.get("past_key_values")}).sum()
                )
                if count:
                    raise UserValueError(
                        f"{count} image tokens in the text, but no image: give the images as pixel_values"
                    )
        prepare: Any = super()._maybe_prepare_encoder_kwargs_for_generation  # type: ignore[misc]  # the protocol of `generate`
        prepared: dict[str, Any] = prepare(inputs_tensor, model_kwargs, model_input_name, generation_config)
        return prepared

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        """Repeat rows for beams and samples, and with each row its images, however many it has."""
        images: dict[str, Any] = {}
        if expand_size > 1:
            pixels = model_kwargs.pop("pixel_values", None)
            encoded: Any = (model_kwargs.pop("mm_encoder_outputs", None) or {}).get("image")
            if pixels is not None or encoded is not None:
                tokens = self._new_image_tokens(model_kwargs | {"input_ids": input_ids})
                counts = (tokens // self.config.image_seq_length).tolist()
                past = model_kwargs.get("past_key_values")
                given = len(pixels) if pixels is not None else len(encoded.pooler_output)
                if sum(counts) != given:
                    cached = past is not None and past.get_seq_length() > 0
                    raise unmatched(int(tokens.sum()), given, self.config.image_seq_length, cached)
            if pixels is not None:
                images["pixel_values"] = _repeat(pixels, counts, expand_size)
            if encoded is not None:
                features = encoded.pooler_output
                if not isinstance(features, torch.Tensor):
                    features = torch.stack(list(features))
                repeated = _repeat(features, counts, expand_size)
                images["mm_encoder_outputs"] = {"image": MM1ImageFeatures(pooler_output=repeated)}
        expand: Any = super()._expand_inputs_for_generation  # type: ignore[misc]  # the protocol of `generate`
        expanded, inputs = expand(expand_size, is_encoder_decoder, input_ids, **model_kwargs)
        return expanded, inputs | images

    def _new_image_tokens(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return how many image tokens each row has beyond those in the cache, `(B,)`."""
        input_ids, embeds, past = (inputs.get(name) for name in ("input_ids", "inputs_embeds", "past_key_values"))
        if input_ids is not None and input_ids.shape[1] == 0:
            input_ids = None  # generation from embeddings has an empty prompt of tokens
        model: Any = self
        cached = 0 if past is None else past.get_seq_length()
        found: torch.Tensor = model.base_model.image_token_mask(input_ids, embeds)[:, cached:].sum(1)
        return found


def unmatched(tokens: int, images: int, tokens_per_image: int, cached: bool) -> UserValueError:
    """Return the error for a text with more or fewer image tokens than its images need.

    Args:
        tokens: Image tokens of the text, those in the cache apart.
        images: Images given.
        tokens_per_image: What each needs.
        cached: Whether there is a cache: its images are in it, and giving them once more is the usual mistake.
    """
    where, remedy = "in the text", "give one placeholder per image"
    if cached:
        where = "in the text that follows the cache"
        remedy = "don't give images again that are in the cache (past_key_values)"
    # TRL knows the beginning, and adds that a short max_length cuts image tokens off.
    return UserValueError(
        f"Image features and image tokens do not match: {tokens} image tokens {where}, but {images} images of "
        f"{tokens_per_image} tokens need {images * tokens_per_image}: {remedy}"
    )


def _repeat(images: torch.Tensor, counts: list[int], times: int) -> torch.Tensor:
    """Repeat the images of each row, `counts` of them, so that they follow the repeated row."""
    return torch.cat([row for row in images.split(counts) for _ in range(times)])
