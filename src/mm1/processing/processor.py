"""`MM1Processor`: tokenizer and image processor together, for documents and for `transformers`' conventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_transforms import to_pil_image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, make_flat_list_of_images
from transformers.processing_utils import MultiModalData

from mm1.document import Document, Image
from mm1.processing.chat import ChatLayout, chat_layout
from mm1.processing.encode import EncodedDocument, encode_document
from mm1.processing.images import cut_image, decode_image, normalize_pixels, to_rgb, upright_size
from mm1.processing.tiles import Tiling, TilingRule, tile
from mm1.processing.tokenizer import IMAGE_TOKEN
from mm1.recipe import ResolutionRecipe


class MM1Processor(ProcessorMixin):
    """Turns documents, or text with `<image>` marks and pictures, into what the model takes.

    Args:
        image_processor: Resizes to a square, rescales and normalises.
        tokenizer: Has BOS, EOS and the `<image>` token.
        tokens_per_image: Placeholders an image takes: a picture as a whole, or each of its sub-images.
        chat_template: Jinja template of conversations, if any.
        resolution: How a picture becomes square images, the keys of a recipe's `model.resolution`; default: it is
            squashed into one.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        tokens_per_image: int = 144,
        chat_template: str | None = None,
        resolution: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.tokens_per_image = tokens_per_image
        self._layout: ChatLayout | None = None
        self.set_rule(TilingRule.from_saved(resolution or {}))
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def set_rule(self, rule: TilingRule) -> None:
        """Set how a picture becomes square images."""
        self.rule = rule
        self.resolution = asdict(rule)  # under the argument's name and as JSON: the library saves it

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.image_processor.size["height"]

    def encode(
        self, document: Document, close: bool = True, text_ids: Sequence[Sequence[int] | np.ndarray] | None = None
    ) -> EncodedDocument:
        """Return the document as tokens; see `mm1.processing.encode.encode_document`.

        Its `images` are marked `whole` where the document has too many pictures for sub-images.
        """
        counts: list[int] | None = None
        if self.rule.cuts:
            if len(document.images) > (self.rule.max_pictures or len(document.images)):
                parts = (replace(part, whole=True) if isinstance(part, Image) else part for part in document.parts)
                document = replace(document, parts=tuple(parts))
            counts = [len(self.tiling(image)) for image in document.images]
        return encode_document(
            document,
            self.tokenizer,
            self.image_token_id,
            self.tokens_per_image,
            close=close,
            text_ids=text_ids,
            sub_images=counts,
            chat=self.chat_layout,
        )

    @property
    def chat_layout(self) -> ChatLayout | None:
        """The chat template, ready to be laid over conversations; None if the model has none."""
        template: Any = self.chat_template
        if template is None:
            return None
        if self._layout is None or self._layout.template != template:
            self._layout = chat_layout(template, self.tokenizer)
        return self._layout

    def tiling(self, image: Image) -> Tiling:
        """Return the square images that a picture becomes; one that can't be read counts as a single one."""
        if self.rule.fit == "squash" and (image.whole or not self.rule.cuts):  # whatever its size
            return tile(1, 1, self.image_size, self.rule, whole=True)
        size = upright_size(image.read())
        return tile(*(size or (1, 1)), self.image_size, self.rule, whole=image.whole or size is None)

    def pixel_values(self, images: Sequence[Image]) -> np.ndarray:
        """Decode pictures, cut them into sub-images where the rule says so, and resize.

        Returns:
            uint8 array of shape (N, 3, image_size, image_size): the images of each picture, one after another.

        Raises:
            ImageError: If one of them is not a readable picture.
        """
        size = self.image_size
        if not images:
            return np.zeros((0, 3, size, size), dtype=np.uint8)
        return np.concatenate([self._cut(image) for image in images])

    def _cut(self, image: Image) -> np.ndarray:
        tiling = self.tiling(image)
        return cut_image(decode_image(image.read(), max(tiling.canvas)), tiling, self._padding)

    @property
    def _padding(self) -> tuple[int, int, int]:
        """The mean colour, which normalisation turns to zero."""
        red, green, blue = (round(255 * mean) for mean in self.image_processor.image_mean)
        return red, green, blue

    def normalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (N, 3, H, W) into the float32 values the vision tower takes, on their device."""
        return normalize_pixels(pixel_values, self.image_processor)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return the placeholders that stand for one image (the library's hook)."""
        return self.image_token * self.tokens_per_image

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[tuple[int, int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Return the image tokens and images that pictures of these heights and widths become (hook of vLLM)."""
        if image_sizes is None:
            return MultiModalData()
        images = [len(tile(width, height, self.image_size, self.rule)) for height, width in image_sizes]
        return MultiModalData(
            num_image_tokens=[count * self.tokens_per_image for count in images], num_image_patches=images
        )

    def _process_images(self, images: Any, **kwargs: Any) -> Any:
        """Prepare pictures as `pixel_values` does, before the library rescales and normalises them."""
        if self.rule == TilingRule():
            return super()._process_images(_to_rgb(images), **kwargs)
        flat: Any = make_flat_list_of_images(images)
        pictures = [to_rgb(to_pil_image(image)) for image in flat]
        tilings = [tile(*picture.size, self.image_size, self.rule) for picture in pictures]
        cut = [cut_image(picture, how, self._padding) for picture, how in zip(pictures, tilings, strict=True)]
        squares = [PILImage.fromarray(square.transpose(1, 2, 0)) for squares in cut for square in squares]
        processed, placeholders = super()._process_images(squares, **kwargs)
        supply = iter(placeholders)
        return processed, ["".join(next(supply) for _ in range(len(how))) for how in tilings]


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
    resolution: TilingRule | ResolutionRecipe | None = None,
    chat_template: str | None = None,
) -> MM1Processor:
    """Put a processor together.

    Args:
        tokenizer: Has BOS, EOS and the `<image>` token.
        image_size: Side of the square input in pixels.
        tokens_per_image: Placeholders an image takes.
        mean: Per channel, of the pixel values scaled to 0..1 (default: CLIP's).
        std: Likewise.
        resolution: How a picture becomes square images; default: it is squashed into one.
        chat_template: Jinja template of conversations, if any (`mm1.processing.chat.default_chat_template`).
    """
    tokenizer.padding_side = "left"  # batches of prompts are continued at their right end
    image_processor = CLIPImageProcessorPil(
        size={"height": image_size, "width": image_size},
        do_center_crop=False,
        image_mean=list(mean),
        image_std=list(std),
    )
    rule = TilingRule.of(resolution) if isinstance(resolution, ResolutionRecipe) else resolution or TilingRule()
    return MM1Processor(image_processor, tokenizer, tokens_per_image, chat_template, resolution=asdict(rule))
