"""`MM1Processor`: tokenizer and image processor together, for documents and for `transformers`' conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mm1.document import Document, Image
from mm1.processing.encode import EncodedDocument, encode_document
from mm1.processing.images import decode_image, resize_to_square, to_rgb
from mm1.processing.tokenizer import IMAGE_TOKEN


class MM1Processor(ProcessorMixin):
    """Turns documents, or text with `<image>` marks and pictures, into what the model takes.

    Args:
        image_processor: Resizes to a square, rescales and normalises.
        tokenizer: Has BOS, EOS and the `<image>` token.
        tokens_per_image: Placeholders a picture takes.
        chat_template: Jinja template of conversations, if any.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        tokens_per_image: int = 144,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.tokens_per_image = tokens_per_image
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.image_processor.size["height"]

    def encode(
        self, document: Document, close: bool = True, text_ids: Sequence[Sequence[int] | np.ndarray] | None = None
    ) -> EncodedDocument:
        """Return the document as tokens; see `mm1.processing.encode.encode_document`."""
        return encode_document(
            document, self.tokenizer, self.image_token_id, self.tokens_per_image, close=close, text_ids=text_ids
        )

    def pixel_values(self, images: Sequence[Image]) -> np.ndarray:
        """Decode and resize pictures.

        Returns:
            uint8 array of shape (N, 3, image_size, image_size).

        Raises:
            ImageError: If one of them is not a readable picture.
        """
        size = self.image_size
        if not images:
            return np.zeros((0, 3, size, size), dtype=np.uint8)
        return np.stack([resize_to_square(decode_image(image.read(), size), size) for image in images])

    def normalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (N, 3, H, W) into the float32 values the vision tower takes, on their device."""
        mean = torch.tensor(self.image_processor.image_mean, device=pixel_values.device).view(1, 3, 1, 1)
        std = torch.tensor(self.image_processor.image_std, device=pixel_values.device).view(1, 3, 1, 1)
        return (pixel_values.float() * self.image_processor.rescale_factor - mean) / std

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return the placeholders that stand for one picture (the library's hook)."""
        return self.image_token * self.tokens_per_image

    def _process_images(self, images: Any, **kwargs: Any) -> Any:
        """Lay transparent pictures on white, as `decode_image` does, before the library converts them."""
        return super()._process_images(_to_rgb(images), **kwargs)


def _to_rgb(images: Any) -> Any:
    if isinstance(images, list | tuple):
        return [_to_rgb(image) for image in images]
    return to_rgb(images) if isinstance(images, PILImage.Image) else images


def build_processor(
    tokenizer: PreTrainedTokenizerBase,
    image_size: int,
    tokens_per_image: int,
    mean: Sequence[float] = OPENAI_CLIP_MEAN,
    std: Sequence[float] = OPENAI_CLIP_STD,
) -> MM1Processor:
    """Put a processor together.

    Args:
        tokenizer: Has BOS, EOS and the `<image>` token.
        image_size: Side of the square input in pixels.
        tokens_per_image: Placeholders a picture takes.
        mean: Per channel, of the pixel values scaled to 0..1 (default: CLIP's).
        std: Likewise.
    """
    tokenizer.padding_side = "left"  # batches of prompts are continued at their right end
    image_processor = CLIPImageProcessorPil(
        size={"height": image_size, "width": image_size},
        do_center_crop=False,
        image_mean=list(mean),
        image_std=list(std),
    )
    return MM1Processor(image_processor, tokenizer, tokens_per_image)
