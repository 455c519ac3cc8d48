"""Captions a picture, or answers a question about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.evaluate.models.generator import Generator
from mm1.evaluate.models.loading import load_generator

_CAPTION = "Provide a one-sentence caption for the provided image."
MAX_NEW_TOKENS = 60
STOP = ("\n",)
"""Strings that end a caption."""


def caption_image(model: Path | str, image: Path, question: str | None = None, quantize: str | None = None) -> str:
    """Return the model's caption of a picture, or its answer to a question.

    Args:
        model: Name of a model (see `mm1.places.MODEL_HELP`).
        image: A picture file.
        question: A question to answer instead of a caption, in the paper's form (sec. 5 and appendix): "Question: ...
            Short answer:". A chat model gets the question unchanged, in a conversation.
        quantize: The precision of the decoder's weights, int8 or int4 (see `mm1.model.quantize`).

    Raises:
        UserError: If the model doesn't exist, or the file is not a readable picture.
    """
    picture = Image(path=str(image))
    generator = load_generator(model, quantize=quantize)
    prompt = caption_prompt(generator, Image(picture.read(), picture.path), str(image), question)
    (answer,) = generator.generate([prompt], max_new_tokens=MAX_NEW_TOKENS, stop=STOP)
    if isinstance(answer, UserError):
        raise UserError(f"{image}: {answer}: name a PNG, JPEG, WebP or similar file")
    return answer


def caption_prompt(generator: Generator, image: Image, id: str, question: str | None = None) -> Document:
    """Return the prompt for a caption of a picture, or for an answer to a question about it."""
    parts = asked_parts([image], question, turns=generator.takes_turns)
    return Document(id, "chat" if generator.takes_turns else "caption", tuple(parts))


def asked_parts(pictures: Sequence[Image], question: str | None, *, turns: bool) -> list[Part]:
    """Return what asks for a caption of pictures, or for an answer to a question about them.

    Args:
        pictures: Any number.
        question: The question; None: a caption is wanted.
        turns: Whether it is a turn of a conversation. Else it has the paper's form (see `caption_image`).
    """
    parts: list[Part] = [*pictures]
    if turns:
        parts.append(Text(question or _CAPTION, target=False))
    elif question is not None:
        parts.append(Text(f" Question: {question} Short answer:"))
    return parts
