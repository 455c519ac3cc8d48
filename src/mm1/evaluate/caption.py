"""A picture put into words, or a question on it answered."""

from __future__ import annotations

from pathlib import Path

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.evaluate.generation import MM1Generator
from mm1.evaluate.loading import load_generator

_CAPTION = "Provide a one-sentence caption for the provided image."
_MAX_NEW_TOKENS = 60


def caption_image(model: Path, image: Path, question: str | None = None) -> str:
    """Return the model's words for a picture.

    Args:
        model: A run's directory, or the folder of a model.
        image: A file with a picture.
        question: If given, it is answered instead, in the paper's form (sec. 5 and appendix): "Question: ... Short
            answer:". A model fine-tuned on conversations is asked in one, and takes the question as it is.

    Raises:
        UserError: If there is no model, or the file is not a readable picture.
    """
    picture = Image(path=str(image))
    parts: list[Part] = [Image(picture.read(), picture.path)]
    generator = load_generator(model)
    if isinstance(generator, MM1Generator) and generator.takes_turns:
        parts.append(Text(question or _CAPTION, learned=False))
        prompt = Document(str(image), "chat", tuple(parts))
    else:
        if question is not None:
            parts.append(Text(f" Question: {question} Short answer:"))
        prompt = Document(str(image), "caption", tuple(parts))
    (answer,) = generator.generate([prompt], max_new_tokens=_MAX_NEW_TOKENS, stop=["\n"])
    if isinstance(answer, UserError):
        raise UserError(f"{image}: {answer}: give a PNG, JPEG, WebP or the like")
    return answer
