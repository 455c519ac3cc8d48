"""Computes the features of pictures and texts with a trained encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, CLIPVisionModel

from mm1.errors import UserError
from mm1.model.pretrained import first_line, pretrained_config
from mm1.model.resolve import resolve_model
from mm1.model.saved import load_saved
from mm1.processing.images import decode_image, normalize_pixels, resize_to_square


class Encoder:
    """One or two towers with the processors of their inputs.

    Args:
        source: Name of a CLIP model or of a CLIP-type vision tower (see `mm1.places.MODEL_HELP`).
        device: The device to compute on.
        batch_size: Pictures or texts per forward pass.

    Raises:
        UserError: If the encoder doesn't exist or can't be used.
    """

    def __init__(self, source: Path | str, device: torch.device, batch_size: int = 256) -> None:
        folder = resolve_model(source)
        kind = pretrained_config(folder, "encoder").model_type
        if kind not in ("clip", "clip_vision_model"):
            raise UserError(
                f"{source}: it is a {kind}, which can't be scored as an encoder: name a CLIP model or vision tower"
            )
        try:
            family = CLIPModel if kind == "clip" else CLIPVisionModel
            model = load_saved(family, folder, str(source), dtype=torch.float32)
            self.images: Any = AutoImageProcessor.from_pretrained(folder)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder) if kind == "clip" else None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{source}: the encoder can't be loaded ({first_line(error)}): name another one, or train it again"
            ) from None
        self.folder, self.device, self.batch_size = folder, device, batch_size
        self.clip: CLIPModel | None = model.to(device).eval() if kind == "clip" else None
        self.tower: CLIPVisionModel = model.vision_model if kind == "clip" else model.to(device).eval()

    def pixels(self, pictures: Sequence[bytes]) -> torch.Tensor:
        """Return (N, 3, H, W) float32 pixels: decoded, resized to the tower's square, normalised.

        Raises:
            ImageError: If a picture can't be read.
        """
        size: Any = self.tower.config.image_size
        values = np.stack([resize_to_square(decode_image(picture, size), size) for picture in pictures])
        return normalize_pixels(torch.from_numpy(values), self.images)

    @torch.inference_mode()
    def image_features(self, pictures: Sequence[bytes]) -> torch.Tensor:
        """Return (N, D) unit features of pictures in the shared space."""
        return torch.cat([F.normalize(self._projected(pixels), dim=-1).cpu() for pixels in self._batches(pictures)])

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return (N, D) unit features of texts in the shared space."""
        clip = self._two_towers()
        features = []
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            encoded = self.tokenizer(
                batch, split_special_tokens=True, truncation=True, padding=True, return_tensors="pt"
            )
            features.append(clip.get_text_features(input_ids=encoded["input_ids"].to(self.device)).pooler_output)
        return torch.cat([F.normalize(rows, dim=-1).cpu() for rows in features])

    @torch.inference_mode()
    def patch_means(self, pictures: Sequence[bytes]) -> torch.Tensor:
        """Return (N, D) means over the last layer's patches, which a connector would read."""
        return torch.cat([self.tower(p).last_hidden_state[:, 1:].mean(1).cpu() for p in self._batches(pictures)])

    def _projected(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._two_towers().get_image_features(pixel_values=pixels).pooler_output
        return features

    def _two_towers(self) -> CLIPModel:
        if self.clip is None:
            raise UserError(
                f"{self.folder}: the encoder has no text tower, so only evaluate.probe can score it: leave "
                "evaluate.retrieval and evaluate.zero_shot out"
            )
        return self.clip

    def _batches(self, pictures: Sequence[bytes]) -> Iterator[torch.Tensor]:
        for start in range(0, len(pictures), self.batch_size):
            yield self.pixels(pictures[start : start + self.batch_size]).to(self.device)
