"""Conversations as nearly all are: turns of a role and a text each, with the pictures before a question.

What they become is what `mm1.data.readers.conversation` makes of them, in a fourth of the time; that takes all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mm1.data.readers.rows import Place
from mm1.data.readers.values import trimmed
from mm1.document import Document, Part, Text

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "bot": "assistant", "chatgpt": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
"""From the names of roles, in lower case, to those of a document."""
_MARK = "<image>"


def everyday_chat(messages: object, pictures: Sequence[Any], place: Place, meta: Mapping[str, Any]) -> Document | None:
    """Return the chat document of a record; None if it takes a closer look to tell what it is.

    Args:
        messages: What the record holds of its turns.
        pictures: What it holds of its pictures (see `PictureFolder.picture`).
        place: Of the record.
        meta: What else is known of it.

    Raises:
        LeftOutError: If a picture can't be taken.
    """
    if type(messages) is not list:
        return None
    parts: list[Part] = []
    roles: list[str] = []
    place_of_pictures: int | None = None
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return None
        if "from" in message:
            named, text = message["from"], message.get("value")
        else:
            named, text = message.get("role"), message.get("content")
        if type(named) is not str or type(text) is not str or text[:1] == "\ufeff":
            return None
        role = ROLES.get(named)
        if role is None:
            return None
        is_marked = "<" in text
        if is_marked:
            if place_of_pictures is not None or len(pictures) != 1 or role != "user" or not text.startswith(_MARK):
                return None
            place_of_pictures = len(parts)
            text = text[len(_MARK) :]
            if "<" in text:
                return None
        if text and not text.isspace():
            parts.append(Text(trimmed(text), role == "assistant"))
            roles.append(role)
        elif not is_marked:
            return None
    at = place_of_pictures
    if at is None and "user" in roles:
        at = roles.index("user")
    if at is None or roles[-1:] != ["assistant"]:
        return None
    roles[at:at] = ["user"] * len(pictures)
    if roles.index("assistant") < roles.index("user"):
        return None
    parts[at:at] = [place.picture(picture) for picture in pictures]
    return Document(place.name, "chat", tuple(parts), {**meta, "turns": roles})
