"""An answer as it follows its prompt."""

from __future__ import annotations

from mm1.document import Document, Text
from mm1.processing.processor import MM1Processor

_MARK = "\ue002"
"""A character for private use: it stands for the answer."""


def following(processor: MM1Processor, document: Document, answer: str) -> str:
    """Return an answer with the white space that a chat template puts before it, as in training.

    Answers in a conversation come without it. A model finds the same words without it unlikely: its first token is
    another one.

    Args:
        processor: Of the model.
        document: The prompt. After one that is no conversation, and where an answer brings its own white space, nothing
            is added.
        answer: The answer.
    """
    layout = processor.chat_layout
    if document.kind != "chat" or layout is None or answer[:1].isspace():
        return answer
    roles = [*document.meta["turns"], "assistant"]
    answered = Document(document.id, "chat", (*document.parts, Text(_MARK)), {"turns": roles})
    for piece in layout.lay_out(answered):
        if isinstance(piece, Text) and piece.target and _MARK in piece.text:
            before = piece.text.partition(_MARK)[0]
            return answer if before.strip() else before + answer
    return answer
