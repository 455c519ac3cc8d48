"""From a document to what the model takes: MM1's own, or any image-text-to-text model of `transformers`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from mm1.document import Document, Image
from mm1.errors import UserError, in_one_line
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.models.transformers import TransformersGenerator
from mm1.processing.chat import turns
from mm1.processing.images import ImageError, decode_image
from mm1.serve.problems import Problem


@dataclass(frozen=True, eq=False)
class Prompt:
    """A document as the model takes it.

    Attributes:
        length: Tokens, image tokens included.
        pictures: How many.
        tensors: Of MM1: `input_ids` (T,) int64 and `pixel_values` (N, 3, H, W) uint8; of another model: what its
            processor returns, a batch of one.
    """

    length: int
    pictures: int
    tensors: dict[str, Any]


class Inputs(Protocol):
    """What the engine needs of a model besides the model."""

    model: Any
    processor: Any
    most_rows: int | None
    """Prompts that one call of `generate` takes; None: any number."""

    @property
    def takes_turns(self) -> bool:
        """Whether the model has a chat template."""
        ...

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together."""
        ...

    @property
    def end_token_ids(self) -> list[int]:
        """Tokens that end an answer."""
        ...

    @property
    def never_written(self) -> list[int]:
        """Tokens that no answer holds."""
        ...

    def prepare(self, document: Document) -> Prompt:
        """Return a document as the model takes it.

        Raises:
            Problem: If it can't be laid out, or a picture can't be read.
        """
        ...

    def batch(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Return prompts as arguments of `generate`, padded on the left."""
        ...


def inputs_of(generator: MM1Generator | TransformersGenerator) -> Inputs:
    """Return what the engine needs of a loaded model."""
    return MM1Inputs(generator) if isinstance(generator, MM1Generator) else LibraryInputs(generator)


class MM1Inputs:
    """Prompts for our own model, by the one function from documents to tokens."""

    most_rows: int | None = None

    def __init__(self, generator: MM1Generator) -> None:
        self.model, self.processor = generator.model, generator.processor
        self.takes_turns, self.max_context = generator.takes_turns, generator.max_context
        self.end_token_ids = self.processor.end_token_ids
        self.never_written = [self.processor.image_token_id]

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest token."""
        return max(map(len, self.processor.tokenizer.get_vocab()))

    def prepare(self, document: Document) -> Prompt:
        """Return a document's tokens and pixels."""
        if len(document.text) > self.max_context * self._longest:  # not worth the time to count them
            raise too_long(None, self.max_context)
        try:
            encoded = self.processor.encode(document, close=False)
            if len(encoded.input_ids) >= self.max_context:
                raise too_long(len(encoded.input_ids), self.max_context)
            pixels = self._pixels(encoded.images)
        except (ImageError, UserError) as error:
            raise Problem(400, str(error), code="invalid_image" if isinstance(error, ImageError) else None) from None
        return Prompt(
            len(encoded.input_ids), len(encoded.images), {"input_ids": encoded.input_ids, "pixel_values": pixels}
        )

    def _pixels(self, images: Sequence[Image]) -> np.ndarray:
        """Return the images of all pictures; an error says which one."""
        pixels = [self.processor.pixel_values([])]
        for number, image in enumerate(images, 1):
            with _numbered(number):
                pixels.append(self.processor.pixel_values([image]))
        return np.concatenate(pixels)

    def batch(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Return `input_ids` and `attention_mask` (B, T), and `pixel_values` (N, 3, H, W) if there are pictures."""
        device, longest = self.model.device, max(prompt.length for prompt in prompts)
        ids = np.full((len(prompts), longest), self.processor.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - prompt.length :] = prompt.tensors["input_ids"]
            mask[row, longest - prompt.length :] = 1
        inputs = {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
        pixels = np.concatenate([prompt.tensors["pixel_values"] for prompt in prompts])
        if len(pixels):
            inputs["pixel_values"] = self.processor.normalize(torch.from_numpy(pixels).to(device))
        return inputs


class LibraryInputs:
    """Prompts for another model, by its own processor; one at a time, since each family pads in its own way."""

    most_rows: int | None = 1

    def __init__(self, generator: TransformersGenerator) -> None:
        self.model, self.processor = generator.model, generator.processor
        self.takes_turns, self.max_context = generator.chat, generator.max_context
        eos = self.model.generation_config.eos_token_id
        eos = self.processor.tokenizer.eos_token_id if eos is None else eos
        self.end_token_ids = eos if isinstance(eos, list) else [eos]
        self.never_written: list[int] = []

    def prepare(self, document: Document) -> Prompt:
        """Return what the model's processor makes of a document."""
        try:
            pictures = []
            for number, image in enumerate(document.images, 1):
                with _numbered(number):
                    pictures.append(decode_image(image.read()))
            inputs = self._turns(document, pictures) if document.kind == "chat" else self._plain(document, pictures)
        except Exception as error:  # processors and templates raise nearly anything
            reason = in_one_line(error)
            raise Problem(400, f"the model's processor can't take this request ({reason}): change it") from None
        length = int(inputs["input_ids"].shape[1])
        if length >= self.max_context:
            raise too_long(length, self.max_context)
        return Prompt(length, len(pictures), dict(inputs))

    def batch(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Return the tensors of the one prompt."""
        (prompt,) = prompts
        tensors = {key: value.to(self.model.device) for key, value in prompt.tensors.items()}
        return {k: v.to(self.model.dtype) if v.is_floating_point() else v for k, v in tensors.items()}

    def _turns(self, document: Document, pictures: Sequence[Any]) -> Any:
        supply = iter(pictures)
        messages = [
            {
                "role": role,
                "content": [
                    {"type": "image", "image": next(supply)}
                    if isinstance(part := document.parts[number], Image)
                    else {"type": "text", "text": part.text}
                    for number in numbers
                ],
            }
            for role, numbers in turns(document)
        ]
        return self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )

    def _plain(self, document: Document, pictures: Sequence[Any]) -> Any:
        mark = getattr(self.processor, "image_token", None)
        text = "".join(str(mark) if isinstance(part, Image) else part.text for part in document.parts)
        return self.processor(text=[text], images=[list(pictures)] if pictures else None, return_tensors="pt")


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Say of a picture that can't be read which of the request's it is."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"picture {number}: {error}") from None


def too_long(length: int | None, most: int) -> Problem:
    """Return the problem of a prompt that leaves no room for an answer."""
    has = "is too long" if length is None else f"has {length:,} tokens"
    return Problem(
        400,
        f"the prompt {has}, and the model takes {most:,} with the answer: shorten it or show fewer pictures",
        code="context_length_exceeded",
    )
