"""`MM1Processor`: tokenizer and image processor together, for documents and for `transformers`' conventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image as PILImage
from transformers import BatchFeature, CLIPImageProcessorPil, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, ChannelDimension, make_flat_list_of_images
from transformers.processing_utils import MultiModalData
from transformers.utils import CHAT_TEMPLATE_FILE

from mm1.auto_map import PROCESSOR_AUTO_MAP, write_code
from mm1.document import Document, Image
from mm1.processing.chat import ChatLayout, chat_layout, names_targets
from mm1.processing.encode import EncodedDocument, encode_document
from mm1.processing.images import cut_image, decode_image, normalize_pixels, upright_size
from mm1.processing.input_checks import (
    check_conversation,
    check_pictures_of_texts,
    check_texts,
    refuse_other_media,
)
from mm1.processing.picture_inputs import picture_arrays, to_bytes
from mm1.processing.tiles import Tiling, TilingRule, tile
from mm1.processing.tokenizer import IMAGE_TOKEN, begin_texts, complete, keep_sides, texts_begin_alike
from mm1.processing.turn_marks import TurnMarks, turn_marks

if TYPE_CHECKING:
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
        self._marks: tuple[str, TurnMarks] | None = None
        self.set_rule(TilingRule.from_saved(resolution or {}))
        complete(tokenizer)
        begin_texts(tokenizer)
        keep_sides(tokenizer)
        self.auto_map = PROCESSOR_AUTO_MAP.copy()
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.tokenizer = tokenizer  # before the chat template, which is the tokenizer's too
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Write the processor to a folder, for `from_pretrained` and for `AutoTokenizer`."""
        # What the last call padded and cut to is no property of the tokenizer; the library would save it as one.
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.chat_template = self.chat_template  # another processor with the same tokenizer may have set it
        if self.chat_template is None:
            Path(save_directory, CHAT_TEMPLATE_FILE).unlink(missing_ok=True)
        write_code(save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Do nothing: folders have the code anyway, and the library would write a single file of it."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the chat template is the tokenizer's too, since the library saves both to one file."""
        super().__setattr__(name, value)
        if name == "chat_template":
            self.tokenizer.chat_template = value

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
            chat=self.chat_layout if document.kind == "chat" else None,
        )

    @property
    def takes_turns(self) -> bool:
        """Whether the model was trained on conversations: it has a template that says what the targets are."""
        return self._template is not None and names_targets(self._template)

    @property
    def chat_layout(self) -> ChatLayout | None:
        """The chat template, ready to be laid over conversations; None if the model has none.

        Raises:
            UserError: If the template doesn't say what the targets are.
        """
        template = self._template
        if template is None:
            return None
        if self._layout is None or self._layout.template != template:
            self._layout = chat_layout(template, self.tokenizer)
        return self._layout

    @property
    def turn_marks(self) -> TurnMarks:
        """What the chat template writes around turns."""
        template = self._template
        if template is None:
            return TurnMarks((), ())
        if self._marks is None or self._marks[0] != template:
            self._marks = template, turn_marks(template, self.tokenizer)
        return self._marks[1]

    @property
    def end_token_ids(self) -> list[int]:
        """The tokens at which generation ends: EOS, and those that end an answer in the chat template."""
        return list(dict.fromkeys([self.tokenizer.eos_token_id, *self.turn_marks.end_ids]))

    @property
    def _template(self) -> str | None:
        """The chat template, the default one of several."""
        template: Any = self.chat_template
        return template.get("default") if isinstance(template, dict) else template

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

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Prepare texts and pictures as the library's processors do.

        Args:
            images: What `mm1.processing.picture_inputs.picture_arrays` takes; nested lists have a list for each text.
            text: One text or several. BOS comes before each, once, as in training, unless `add_special_tokens` is
                False; a text that begins as the chat template begins a conversation is left as it is.
            videos: None: the model takes none.
            audio: Likewise.
            kwargs: See `transformers.ProcessorMixin`.

        Raises:
            UserValueError: If the texts are none, if there are videos or sounds, or if the nested lists have other
                numbers of pictures than their texts have marks.
            ImageError: If a picture can't be read.
        """
        if text is not None:
            check_texts(text)
        if text is not None and _option(kwargs, "text_kwargs", "add_special_tokens") is not False:
            text, added = self._begun(text)
            if not added:
                section = {**(kwargs.get("text_kwargs") or {})}
                section.pop("add_special_tokens", None)
                kwargs = {**kwargs, "text_kwargs": section, "add_special_tokens": False}
        with texts_begin_alike(self.tokenizer):
            return super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """Lay out conversations by the chat template; what it writes is all: no BOS is put before it."""
        check_conversation(conversation)
        options = kwargs.pop("processor_kwargs", None) or {}
        if all(_option(given, "text_kwargs", "add_special_tokens") is None for given in (options, kwargs)):
            options = {**options, "add_special_tokens": False}
        lay_out: Any = super().apply_chat_template
        result = lay_out(conversation, *args, processor_kwargs=options, **kwargs)
        if isinstance(result, BatchFeature) and isinstance(result["input_ids"], torch.Tensor):
            # A pipeline puts conversations with and without pictures into one batch: they must have the same keys.
            result.setdefault("pixel_values", torch.zeros(0, 3, self.image_size, self.image_size))
        return result

    def _begun(self, text: Any) -> tuple[Any, bool]:
        """Return texts, and whether the tokenizer is to put BOS before them (it puts one before all or none)."""
        texts = [text] if isinstance(text, str) else text
        bos = self.tokenizer.bos_token
        begun = [one.startswith((bos, *self.turn_marks.openings)) for one in texts]
        if not any(begun):
            return text, True
        return [one if whole else bos + one for one, whole in zip(texts, begun, strict=True)], False

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> Any:
        """Read pictures, whatever they are given as (the library's hook)."""
        if images is not None:
            images = picture_arrays(images, _option(kwargs, "images_kwargs", "input_data_format"))
            if isinstance(images, list) and not any(len(some) for some in images):
                images = None  # texts without pictures, each with its empty list
        return super().prepare_inputs_layout(images=images, text=text, videos=videos, audio=audio, **kwargs)

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        """Check that what is given goes together (the library's hook, which checks totals alone)."""
        refuse_other_media(videos, audio)
        check_pictures_of_texts(images, text, self.image_token)
        super().validate_inputs(images=images, text=text, **kwargs)

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
        """Cut pictures into square images as `pixel_values` does; the library rescales and normalises them."""
        flat: Any = make_flat_list_of_images(images)
        rescale = kwargs.get("do_rescale")
        rescale = self.image_processor.do_rescale if rescale is None else rescale
        squares: list[np.ndarray] = []
        counts: list[int] = []
        for picture in flat:
            # Floats from 0 to 1 are scaled already: they become bytes only where bytes are to be rescaled.
            cut = self._squares(to_bytes(picture), kwargs)
            scaled = picture.dtype != np.uint8 and not rescale
            squares += [some.astype(np.float32) / 255 if scaled else some for some in cut]
            counts.append(len(cut))
        given = {**kwargs, "do_convert_rgb": False, "input_data_format": ChannelDimension.FIRST}
        processed, placeholders = super()._process_images(squares, **given)
        supply = iter(placeholders)
        return processed, ["".join(next(supply) for _ in range(count)) for count in counts]

    def _squares(self, picture: np.ndarray, options: Mapping[str, Any]) -> list[np.ndarray]:
        """Return the images (3, H, W) that a picture becomes: itself where the caller wants another size."""
        resized = any(options.get(name) is not None for name in ("size", "resample", "do_resize"))
        if resized and self.rule == TilingRule():
            return [picture]
        whole = PILImage.fromarray(picture.transpose(1, 2, 0))
        return list(cut_image(whole, tile(*whole.size, self.image_size, self.rule), self._padding))


def _option(options: Mapping[str, Any], section: str, name: str) -> Any:
    """Return an option that is given by itself or in a section of options; None if it isn't given."""
    own = options.get(section) or {}
    common = options.get("common_kwargs") or {}
    return options.get(name, own.get(name, common.get(name)))


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
    if resolution is None:
        resolution = TilingRule()
    rule = resolution if isinstance(resolution, TilingRule) else TilingRule.of(resolution)
    return MM1Processor(image_processor, tokenizer, tokens_per_image, chat_template, resolution=asdict(rule))
