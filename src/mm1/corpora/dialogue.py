"""Conversations as documents: turns of texts and pictures; the assistant's texts are targets."""

from __future__ import annotations

from collections.abc import Sequence

from mm1.document import Document, Image, Part, Text

Turn = tuple[str, Sequence[str | Part]]
"""A role (`system`, `user` or `assistant`), and texts and pictures in order; a `Text` says whether it is a target."""


def dialogue(id: str, turns: Sequence[Turn], **meta: object) -> Document:
    """Return a chat document.

    Args:
        id: The document's id.
        turns: The turns in order; the user begins.
        meta: Further values for the document's meta.
    """
    parts: list[Part] = []
    roles: list[str] = []
    for role, contents in turns:
        for content in contents:
            parts.append(Text(content, target=role == "assistant") if isinstance(content, str) else content)
            roles.append(role)
    return Document(id, "chat", tuple(parts), {**meta, "turns": roles})


def rounds(pictures: Sequence[Image], pairs: Sequence[tuple[str, str]]) -> list[Turn]:
    """Return the turns of questions and answers, with the pictures before the first question."""
    turns: list[Turn] = []
    for number, (question, answer) in enumerate(pairs):
        turns += [("user", [*(pictures if number == 0 else ()), question]), ("assistant", [answer])]
    return turns
