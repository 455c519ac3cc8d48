"""A picture put into words, or a question on it answered."""

from __future__ import annotations

from pathlib import Path

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.evaluate.models.generator import Generator
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.models.mm1 import MM1Generator

_CAPTION = "Provide a one-sentence caption for the provided image."
MAX_NEW_TOKENS = 60
STOP = ("\n",)
"""Where a caption ends."""


def caption_image(model: Path | str, image: Path, question: str | None = None) -> str:
    """Return the model's words for a picture.

    Args:
        model: Name of a model (see `mm1.places.MODEL_HELP`).
        image: A file with a picture.
        question: If given, it is answered instead, in the paper's form (sec. 5 and appendix): "Question: ... Short
            answer:". A model fine-tuned on conversations is asked in one, and takes the question as it is.

    Raises:
        UserError: If there is no model, or the file is not a readable picture.
    """
    picture = Image(path=str(image))
    generator = load_generator(model)
    prompt = caption_prompt(generator, Image(picture.read(), picture.path), str(image), question)
    (answer,) = generator.generate([prompt], max_new_tokens=MAX_NEW_TOKENS, stop=STOP)
    if isinstance(answer, UserError):
        raise UserError(f"{image}: {answer}: give a PNG, JPEG, WebP or the like")
    return answer


def caption_prompt(generator: Generator, image: Image, id: str, question: str | None = None) -> Document:
    """Return what a model is asked for its words on a picture, or for an answer to a question on it."""
    parts: list[Part] = [image]
    if isinstance(generator, MM1Generator) and generator.takes_turns:
        parts.append(Text(question or _CAPTION, target=False))
        return Document(id, "chat", tuple(parts))
    if question is not None:
        parts.append(Text(f" Question: {question} Short answer:"))
    return Document(id, "caption", tuple(parts))
