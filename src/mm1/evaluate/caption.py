"""A picture put into words, or a question on it answered."""

from __future__ import annotations

from pathlib import Path

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.evaluate.loading import load_generator
from mm1.processing.images import ImageError, decode_image

_MAX_NEW_TOKENS = 60


def caption_image(model: Path, image: Path, question: str | None = None) -> str:
    """Return the model's words for a picture.

    Args:
        model: A run's directory, or the folder of a model.
        image: A file with a picture.
        question: If given, it is answered instead, in the paper's form (sec. 5 and appendix): "Question: ... Short
            answer:".

    Raises:
        UserError: If there is no model, or the file is not a readable picture.
    """
    data = Image(path=str(image)).read()
    try:
        decode_image(data)
    except ImageError as error:
        raise UserError(f"{image}: {error}: give a PNG, JPEG, WebP or the like") from None
    parts: list[Part] = [Image(data, str(image))]
    if question is not None:
        parts.append(Text(f" Question: {question} Short answer:"))
    prompt = Document(str(image), "caption", tuple(parts))
    (answer,) = load_generator(model).generate([prompt], max_new_tokens=_MAX_NEW_TOKENS, stop=["\n"])
    if isinstance(answer, Exception):
        raise answer
    return answer
