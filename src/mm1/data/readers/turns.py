"""The conversations of records, in the keys that libraries give them.

| keys | as in |
| --- | --- |
| `messages` of `role` and `content`, `images` or `image` | TRL, ms-swift |
| `conversations` of `from` and `value`, `image` or `images`, `system`, `tools` | LLaVA, LLaMA-Factory |
| `texts` of `user` and `assistant`, `images` | the_cauldron |
| `prompt` and `completion`, texts or messages | TRL |

Turns may have either pair of keys under any of the names. A content is a text, with `<image>` where a picture stands,
or a list of parts: texts, and pictures that stand for the next one, for the one of their `index`, or hold or name
their own. What a record says of videos, audio and tools can't be learned from: such records are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mm1.data.readers.conversation import Mark, Turn, conversation, marked, picture_mark
from mm1.data.readers.everyday import ROLES, everyday_chat
from mm1.data.readers.rows import Place
from mm1.data.readers.values import LeftOutError, as_text, is_given, is_picture, kind_of, plain_python
from mm1.document import Document

_MESSAGE_KEYS = ("messages", "conversations", "conversation")
TURN_KEYS = (*_MESSAGE_KEYS, "texts", "prompt")
_TOOL_ROLES = {"tool", "tools", "function", "function_call", "observation", "tool_call", "tool_response", "ipython"}
_PICTURE_KEYS = ("images", "image")
_MEDIA_KEYS = {"video": "video", "videos": "video", "audio": "audio", "audios": "audio"}
_BESIDE_TURNS = frozenset({*_MEDIA_KEYS, "tools", "system"})
_USED = {*TURN_KEYS, "completion", "system", *_PICTURE_KEYS, *_MEDIA_KEYS}
_MEDIA_MARK = re.compile(r"\A\s*<(video|audio)>|<(video|audio)>\s*\Z")
_HELD_BY_PART = ("image", "image_url", "url", "path", "base64", "data", "source", "bytes", "input_image")


def chat_of_record(record: Mapping[str, Any], place: Place, suffix: str = "") -> Document:
    """Return the chat document of a record.

    Raises:
        LeftOutError: If it has no conversation to learn from.
    """
    given = next((record[key] for key in _PICTURE_KEYS if key in record and is_picture(record[key])), None)
    pictures = [] if given is None else pictures_of(given)
    own = {name: value for name, value in record.items() if name not in _USED and value is not None}
    is_bare = _BESIDE_TURNS.isdisjoint(record)
    if is_bare and not suffix:
        key = next((key for key in _MESSAGE_KEYS if key in record), "")
        document = everyday_chat(record.get(key), pictures, place, own)
        if document is not None:
            return document
    turns = _turns(record) if is_bare else _with_what_is_beside(record, place)
    return conversation(turns, pictures, place, own, suffix)


def _with_what_is_beside(record: Mapping[str, Any], place: Place) -> list[Turn]:
    """Return the turns of a record that says more beside them.

    Raises:
        LeftOutError: If they can't be learned from without it.
    """
    for key, media in _MEDIA_KEYS.items():
        if is_given(record.get(key)):
            raise LeftOutError(f"conversation with {media}")
    turns = _turns(record)
    if is_given(record.get("tools")):
        place.lose("tools of a conversation: kept as metadata only")
    return _with_system(record, turns, place)


def pictures_of(value: object) -> list[Any]:
    """Return the pictures that a column holds: one or a list; places without any are passed over."""
    value = plain_python(value)
    values = value if isinstance(value, (list, tuple)) else [value]
    return [one for one in values if is_picture(one)]


def is_chat(texts: object) -> bool:
    """Whether a column `texts` holds the_cauldron's conversations (OBELICS has one of texts)."""
    return isinstance(texts, list) and any(isinstance(text, Mapping) for text in texts)


def _turns(record: Mapping[str, Any]) -> list[Turn]:
    found = next((key for key in TURN_KEYS if key in record and is_given(record[key])), None)
    if found is None:
        present = ", ".join(str(key) for key in record)[:200]
        raise LeftOutError("record without turns of a conversation", f"it has {present or 'nothing'}")
    value = plain_python(record[found])
    if found == "prompt":
        value = [*_messages(value, "user"), *_messages(record.get("completion"), "assistant")]
    if not isinstance(value, (list, tuple)):
        raise LeftOutError(f"turns of a conversation that are {kind_of(value)}")
    if found == "texts":
        return [turn for pair in value for turn in _pair(pair)]
    return [_turn(message) for message in value]


def _messages(value: object, role: str) -> list[Any]:
    value = plain_python(value)
    return list(value) if isinstance(value, (list, tuple)) else [{"role": role, "content": value}]


def _pair(pair: object) -> Iterable[Turn]:
    if not isinstance(pair, Mapping):
        raise LeftOutError(f"turn that is {kind_of(pair)}")
    return [(role, _pieces(pair.get(role), role)) for role in ("user", "assistant")]


def _turn(message: object) -> Turn:
    if not isinstance(message, Mapping):
        raise LeftOutError(f"turn that is {kind_of(message)}")
    named = next((message[key] for key in ("role", "from") if is_given(message.get(key))), None)
    role = ROLES.get(named.lower()) if isinstance(named, str) else None
    if (isinstance(named, str) and named.lower() in _TOOL_ROLES) or is_given(message.get("tool_calls")):
        raise LeftOutError("conversation with calls of tools")
    if role is None:
        raise LeftOutError("turn whose role is none of user, assistant and system", repr(named)[:50])
    contents = [message[key] for key in ("content", "value") if message.get(key) is not None]
    return role, _pieces(contents[0] if contents else None, role)


def _pieces(content: object, role: str) -> list[str | Mark]:
    """Return a turn's texts and marks."""
    content = plain_python(content)
    if isinstance(content, (list, tuple)):
        return [piece for part in content for piece in _part(part)]
    text = as_text(content, number=role == "assistant")
    if text is None:
        raise LeftOutError(f"turn that is {kind_of(content)}")
    if role == "user" and (media := _MEDIA_MARK.search(text)):
        raise LeftOutError(f"conversation with {media[1] or media[2]}")
    return marked(text)


def _part(part: object) -> list[str | Mark]:
    """Return what an entry of a turn's content says."""
    if isinstance(part, str):
        return marked(part)
    if not isinstance(part, Mapping):
        raise LeftOutError(f"part of a turn that is {kind_of(part)}")
    type_ = part.get("type")
    given = (key for key in ("text", *_HELD_BY_PART) if is_given(part.get(key)))
    kind = type_ if isinstance(type_, str) else next(given, "")
    if "video" in kind or "audio" in kind:
        raise LeftOutError(f"conversation with {'video' if 'video' in kind else 'audio'}")
    if kind in ("text", "input_text", "output_text"):
        text = as_text(part.get("text"))
        if text is None:
            raise LeftOutError(f"text of a turn that is {kind_of(part.get('text'))}")
        return marked(text)
    if kind in _HELD_BY_PART:
        held = next((part[key] for key in _HELD_BY_PART if is_picture(part.get(key))), None)
        return [picture_mark(part.get("index"), held)]
    raise LeftOutError("part of a turn that is neither text nor picture", repr(type_)[:50])


def _with_system(record: Mapping[str, Any], turns: list[Turn], place: Place) -> list[Turn]:
    """Return the turns with the prompt that stands beside them, if any, as the first."""
    if not is_given(record.get("system")):
        return turns
    prompt = as_text(record["system"])
    if prompt is None:
        place.lose(f"system prompt that is {kind_of(record['system'])}")
    elif turns and turns[0][0] == "system":
        place.lose("system prompt beside turns that begin with one")
    else:
        return [("system", [prompt]), *turns]
    return turns
