"""A picture put into words, or a question on it answered."""

from __future__ import annotations

from pathlib import Path

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.evaluate.loading import load_generator

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
    picture = Image(path=str(image))
    parts: list[Part] = [Image(picture.read(), picture.path)]
    if question is not None:
        parts.append(Text(f" Question: {question} Short answer:"))
    prompt = Document(str(image), "caption", tuple(parts))
    (answer,) = load_generator(model).generate([prompt], max_new_tokens=_MAX_NEW_TOKENS, stop=["\n"])
    if isinstance(answer, UserError):
        raise UserError(f"{image}: {answer}: give a PNG, JPEG, WebP or the like")
    return answer
