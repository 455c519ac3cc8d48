r"""Questions about a picture as document parts, in the paper's prompt form (sec. 7).

    [Image][" Question: what color is the shape? Short answer:"][" gray\n"]["Question: ..."][" circle\n"]

Only the answers are targets.
"""

from __future__ import annotations

from collections.abc import Sequence

from mm1.document import Document, Image, Part, Text


def question_prompt(question: str) -> str:
    """Return the prompt for one question; `" answer"` follows it."""
    return f"Question: {question} Short answer:"


def interview(id: str, image: Image, pairs: Sequence[tuple[str, str]], **meta: object) -> Document:
    """Return a document of one picture and several questions with their answers, one per line.

    Args:
        id: The document's id.
        image: The picture.
        pairs: Questions and answers.
        meta: The document's meta.
    """
    parts: list[Part] = [image]
    for number, (question, answer) in enumerate(pairs):
        parts.append(Text((" " if number == 0 else "") + question_prompt(question), target=False))
        parts.append(Text(f" {answer}\n"))
    return Document(id, "interleaved", tuple(parts), meta)


def single_question(id: str, image: Image, question: str, answer: str, **meta: object) -> Document:
    """Return a document of one picture, one question and its answer; both are also in `meta`."""
    parts = (image, Text(" " + question_prompt(question), target=False), Text(f" {answer}"))
    return Document(id, "interleaved", parts, {"question": question, "answer": answer} | meta)
