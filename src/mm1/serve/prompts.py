"""From the body of a request to a document: the record that training, evaluation and use share."""

from __future__ import annotations

from mm1.document import Document, Image, Part, Text
from mm1.processing.tokenizer import IMAGE_TOKEN
from mm1.serve.bodies import ChatBody, CompletionBody, PicturePart
from mm1.serve.pictures import PictureReader, places
from mm1.serve.problems import Problem


def conversation(body: ChatBody, pictures: PictureReader) -> Document:
    """Return a conversation that ends where the model answers.

    Raises:
        Problem: If it doesn't end with the user's turn, or a picture can't be read.
    """
    parts: list[Part] = []
    roles: list[str] = []
    for number, message in enumerate(body.messages):
        role = "system" if message.role == "developer" else message.role
        content = message.content
        for place, part in enumerate([content] if isinstance(content, str) else content):
            if isinstance(part, PicturePart):
                where = f"messages[{number}].content[{place}].image_url"
                if role != "user":
                    raise Problem(
                        400, f"{where}: only the user shows pictures: put it into a user message", param=where
                    )
                parts.append(pictures.read(part.image_url, where))
            else:
                parts.append(Text(part if isinstance(part, str) else part.text, target=role == "assistant"))
            roles.append(role)
    if roles[-1] != "user":
        last = f"messages[{len(body.messages) - 1}]"
        raise Problem(400, f"{last}: the last message must be the user's, who is then answered", param=last)
    return Document("request", "chat", tuple(parts), {"turns": roles})


def continuation(body: CompletionBody, pictures: PictureReader) -> Document:
    """Return a text with pictures that the model continues.

    Raises:
        Problem: If pictures and places don't match, or a picture can't be read.
    """
    images = [pictures.read(given, f"images[{number}]") for number, given in enumerate(body.images or ())]
    parts: list[Part] = [
        part if isinstance(part, Image) else Text(part, target=False) for part in places(body.text, images, IMAGE_TOKEN)
    ]
    return Document("request", "interleaved", tuple(parts))
