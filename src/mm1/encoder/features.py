"""A trained encoder at use: pictures and texts in, features out."""

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
from mm1.processing.images import decode_image, normalize_pixels, resize_to_square


class Encoder:
    """A tower, or two, with what prepares their inputs.

    Args:
        source: Name of a CLIP model or of a CLIP-type vision tower (see `mm1.places.MODEL_HELP`).
        device: Where to compute.
        batch_size: Pictures or texts at a time.

    Raises:
        UserError: If there is no such encoder.
    """

    def __init__(self, source: Path | str, device: torch.device, batch_size: int = 256) -> None:
        folder = resolve_model(source)
        kind = pretrained_config(folder, "encoder").model_type
        if kind not in ("clip", "clip_vision_model"):
            raise UserError(f"{source}: a {kind} is no encoder that can be scored: take a CLIP model or vision tower")
        try:
            model: Any = (CLIPModel if kind == "clip" else CLIPVisionModel).from_pretrained(folder, dtype=torch.float32)
            self.images: Any = AutoImageProcessor.from_pretrained(folder)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder) if kind == "clip" else None
        except (OSError, ValueError) as error:
            raise UserError(f"{source}: the encoder can't be loaded ({first_line(error)})") from None
        self.folder, self.device, self.batch_size = folder, device, batch_size
        self.clip: CLIPModel | None = model.to(device).eval() if kind == "clip" else None
        self.tower: CLIPVisionModel = model.vision_model if kind == "clip" else model.to(device).eval()

    def pixels(self, pictures: Sequence[bytes]) -> torch.Tensor:
        """Return (N, 3, H, W) float32: decoded, resized to the tower's square, normalised.

        Raises:
            ImageError: If one of them is not a readable picture.
        """
        size: Any = self.tower.config.image_size
        values = np.stack([resize_to_square(decode_image(picture, size), size) for picture in pictures])
        return normalize_pixels(torch.from_numpy(values), self.images)

    @torch.inference_mode()
    def image_features(self, pictures: Sequence[bytes]) -> torch.Tensor:
        """Return (N, D) unit features of pictures in the space shared with texts."""
        return torch.cat([F.normalize(self._projected(pixels), dim=-1).cpu() for pixels in self._batches(pictures)])

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return (N, D) unit features of texts in the space shared with pictures."""
        clip = self._two_towers()
        features = []
        for start in range(0, len(texts), self.batch_size):
            some = list(texts[start : start + self.batch_size])
            encoded = self.tokenizer(
                some, split_special_tokens=True, truncation=True, padding=True, return_tensors="pt"
            )
            features.append(clip.get_text_features(input_ids=encoded["input_ids"].to(self.device)).pooler_output)
        return torch.cat([F.normalize(rows, dim=-1).cpu() for rows in features])

    @torch.inference_mode()
    def patch_means(self, pictures: Sequence[bytes]) -> torch.Tensor:
        """Return (N, D) means of the last layer's patches: what the connector would read."""
        return torch.cat([self.tower(p).last_hidden_state[:, 1:].mean(1).cpu() for p in self._batches(pictures)])

    def _projected(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._two_towers().get_image_features(pixel_values=pixels).pooler_output
        return features

    def _two_towers(self) -> CLIPModel:
        if self.clip is None:
            raise UserError(f"{self.folder}: the encoder has no text tower: only evaluate.probe can score it")
        return self.clip

    def _batches(self, pictures: Sequence[bytes]) -> Iterator[torch.Tensor]:
        for start in range(0, len(pictures), self.batch_size):
            yield self.pixels(pictures[start : start + self.batch_size]).to(self.device)
