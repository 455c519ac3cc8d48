"""What a processor is called with: mistakes that the library passes over, or on which it fails without a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mm1.errors import UserValueError

_OTHER_MEDIA = ("video", "video_url", "audio", "audio_url", "input_audio")


def check_texts(text: Any) -> None:
    """Check that there are texts.

    Raises:
        UserValueError: If there are none.
    """
    if isinstance(text, list | tuple) and not text:
        raise UserValueError("`text` is an empty list: give a text, or leave it out where there are only pictures")
    if not isinstance(text, str) and not (isinstance(text, list | tuple) and all(isinstance(one, str) for one in text)):
        raise UserValueError(
            f"`text` must be a string or list of strings, and is a {type(text).__name__}: name both arguments, as in "
            "processor(images=..., text=...); without names, the pictures come first"
        )


def refuse_other_media(videos: Any, audio: Any) -> None:
    """Refuse what the model doesn't take; the library would leave it out in silence.

    Raises:
        UserValueError: If there are videos or sounds.
    """
    for name, given in (("videos", videos), ("audio", audio)):
        if given is not None and not (isinstance(given, list | tuple) and not given):
            raise UserValueError(f"`{name}`: the model takes texts and pictures alone: leave it out, or give pictures")


def check_pictures_of_texts(images: Any, texts: Any, image_token: str) -> None:
    """Check that every text has as many marks as its list has pictures.

    One flat list has the pictures of all texts in order. So has one list for all, and lists that go with one text.

    Args:
        images: A picture, a list of pictures, or a list of such lists.
        texts: The texts, if any.
        image_token: The mark.

    Raises:
        UserValueError: If a picture would be shown with another text than its own, or the lists are otherwise nested.
    """
    if not isinstance(images, list) or not any(isinstance(one, list) for one in images):
        return
    if not all(isinstance(one, list) and not any(isinstance(some, list) for some in one) for one in images):
        raise UserValueError("`images`: give one flat list of pictures, or one list of them for each text")
    if len(images) == 1 or not isinstance(texts, Sequence) or isinstance(texts, str) or len(texts) < 2:
        return
    if len(images) != len(texts):
        raise UserValueError(
            f"`images` has {len(images)} lists, and `text` {len(texts)} texts: give one list a text, [] where there is "
            "no picture"
        )
    for number, (some, text) in enumerate(zip(images, texts, strict=True)):
        given, marks = len(some), text.count(image_token)
        if given != marks:
            raise UserValueError(
                f"text[{number}] has {marks} x {image_token}, and images[{number}] {given} pictures: give each text as "
                "many marks as its list has pictures"
            )


def check_conversation(conversation: Any) -> None:
    """Check that there is a conversation, of texts and pictures.

    Raises:
        UserValueError: If there is no message, or there are videos or sounds.
    """
    conversation = getattr(conversation, "messages", conversation)  # a pipeline's
    if isinstance(conversation, str | Mapping) or not conversation:
        raise UserValueError(
            "the conversation has no messages: give a list as [{'role': 'user', 'content': 'What is this?'}]"
        )
    for one in conversation:
        for message in one if isinstance(one, list | tuple) else [one]:
            content = message.get("content") if isinstance(message, Mapping) else None
            for part in content if isinstance(content, list | tuple) else ():
                kind = part.get("type") if isinstance(part, Mapping) else None
                if kind in _OTHER_MEDIA:
                    raise UserValueError(
                        f"a message has a part of type '{kind}': the model takes texts and pictures alone: give "
                        "pictures as {'type': 'image', ...}"
                    )
