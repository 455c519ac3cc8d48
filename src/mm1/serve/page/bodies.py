"""The bodies of the page's own requests: a prompt as chat and completions take it, and what is asked about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field

from mm1.document import Document
from mm1.serve.bodies import ChatBody, CompletionBody, Sampling, read_body
from mm1.serve.pictures import PictureReader
from mm1.serve.problems import Problem
from mm1.serve.prompts import continuation, conversation
from mm1.serve.service import Service

MOST_ALTERNATIVES = 64
_PROMPT = {"model", "messages", "prompt", "images"}

Ask = Callable[[PictureReader], Document]
"""Makes the prompt's document; it reads pictures, so it runs in a thread."""


class Nothing(BaseModel):
    """Nothing besides the prompt."""


class Alternatives(BaseModel):
    """Texts that might follow the prompt."""

    alternatives: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(max_length=MOST_ALTERNATIVES, min_length=1)
    ]


class Given(BaseModel):
    """An answer that was given."""

    answer: Annotated[str, Field(min_length=1)]


class ChatAlternatives(ChatBody, Alternatives):
    """Alternatives after a conversation."""


class TextAlternatives(CompletionBody, Alternatives):
    """Alternatives after a text."""


class ChatAnswer(ChatBody, Given):
    """The answer to a conversation."""


class TextAnswer(CompletionBody, Given):
    """The answer to a text."""


KINDS: dict[type[BaseModel], tuple[type[ChatBody], type[CompletionBody]]] = {
    Nothing: (ChatBody, CompletionBody),
    Alternatives: (ChatAlternatives, TextAlternatives),
    Given: (ChatAnswer, TextAnswer),
}


def read_asked(service: Service, asked: type[BaseModel], body: Mapping[str, Any]) -> tuple[Any, Ask]:
    """Return a request's body, checked, and what makes its document.

    Args:
        service: The model.
        asked: What is asked about the prompt, a key of `KINDS`.
        body: Holds `messages`, or `prompt` with `images`, and what is asked.

    Raises:
        Problem: If a field is unknown, has no effect here, or has a wrong value; if the model takes no conversations.
    """
    chat, text = KINDS[asked]
    read: Sampling = read_body(chat if "messages" in body else text, body)
    for name in sorted(read.model_fields_set - _PROMPT - asked.model_fields.keys()):
        message = f"{name}: nothing is written here, so this has no effect: leave it out"
        raise Problem(400, message, code="unsupported_parameter", param=name)
    model = service.name(read.model)
    if isinstance(read, ChatBody):
        if not service.inputs.takes_turns:
            raise Problem(
                400,
                f"messages: '{model}' is a pre-trained model without a chat template: send prompt and images instead",
                code="no_chat_template",
                param="messages",
            )
        talk = read
        return read, lambda pictures: conversation(talk, pictures)
    assert isinstance(read, CompletionBody)
    text_body = read
    return read, lambda pictures: continuation(text_body, pictures)
