"""The bodies of requests: what is taken, what is taken because it changes nothing, and what is refused.

A setting that is passed over in silence gives answers that nobody asked for, so whatever has no effect here is refused
unless it says what is done anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mm1.serve.problems import Problem

MOST_MESSAGES = 1024
_MOST_STOPS = 16
_COLDEST = 0.01

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),  # 0 asks completions for the token's own
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Settings of OpenAI's that this server lacks, and the values that ask for what it does anyway."""

_NAMES_ONLY = ("user", "metadata", "safety_identifier", "prompt_cache_key")
"""Settings that name the asker and never change an answer."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class TextPart(_Part):
    """A text."""

    type: Literal["text"]
    text: str


class Address(_Part):
    """Where a picture is."""

    url: str = Field(description="A data URL, `data:image/png;base64,...`, or the address on a host that is allowed.")
    detail: Literal["auto", "low", "high"] = Field(
        default="auto", description="`low`: the picture is one image even to a model that cuts pictures."
    )


class PicturePart(_Part):
    """A picture."""

    type: Literal["image_url"]
    image_url: Address | str


class Message(_Part):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: (
        str
        | Annotated[
            list[Annotated[TextPart | PicturePart, Field(discriminator="type")]],
            Field(min_length=1, max_length=MOST_MESSAGES),
        ]
    )


class StreamOptions(_Part):
    """What a stream holds besides."""

    include_usage: bool = Field(default=False, description="Whether a last chunk counts the tokens.")
    include_obfuscation: Literal[False] = False


class Sampling(_Part):
    """How an answer is written: what chat and completions share."""

    model: str | None = Field(default=None, description="A name that `/v1/models` lists.")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(
        default=None, ge=0, le=2, allow_inf_nan=False, description="Default 0: the likeliest token. Else 0.01 or more."
    )
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False, description="Default 1.")
    seed: int | None = Field(
        default=None, ge=-(2**63), lt=2**63, description="Of the draws, if temperature is above 0."
    )
    stop: str | Annotated[list[str], Field(max_length=_MOST_STOPS)] | None = Field(
        default=None, description="Strings that end the answer and are no part of it."
    )
    max_tokens: int | None = Field(default=None, ge=1)

    @field_validator("temperature")
    @classmethod
    def _not_too_cold(cls, value: float | None) -> float | None:
        if value is not None and 0 < value < _COLDEST:
            raise ValueError(f"0 or from {_COLDEST} to 2: below that, probabilities have no room in a float")
        return value

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [mark for mark in given if mark]

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the longest answer, if the request says."""
        return self.max_tokens

    @property
    def counts_usage(self) -> bool:
        """Whether the stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatBody(Sampling):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The newer name of `max_tokens`.")

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the longest answer, if the request says."""
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(Sampling):
    """The body of `/v1/completions`."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)] = Field(
        default="", description="Text; each `<image>` in it is a place of `images`."
    )
    images: Annotated[list[Address | str], Field(max_length=MOST_MESSAGES)] | None = Field(
        default=None, description="Pictures, in the order of their places."
    )

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


B = TypeVar("B", bound=Sampling)


def read_body(kind: type[B], body: Mapping[str, Any]) -> B:
    """Return a request's body, checked.

    Raises:
        Problem: If a field is unknown, has no effect here, or has a wrong value.
    """
    for key in ("messages", "images"):  # before each of a million is checked
        if isinstance(body.get(key), list) and len(body[key]) > MOST_MESSAGES:
            raise Problem(400, f"{key}: more than {MOST_MESSAGES:,}: send fewer", param=key)
    try:
        read = kind.model_validate(body)
    except ValidationError as error:
        raise _problem(error) from None
    _refuse_rest(read, "")
    if isinstance(read, ChatBody):
        for number, message in enumerate(read.messages):
            where = f"messages[{number}]"
            _refuse_rest(message, f"{where}.")
            for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
                _refuse_rest(part, f"{where}.content[{place}].")
    _check_text(body, "the body", 0)
    return read


def _refuse_rest(part: _Part, where: str) -> None:
    """Refuse fields that this server doesn't know; None and empty lists ask for nothing."""
    for name, value in (part.model_extra or {}).items():
        if value is None or value == [] or (not where and name in _NAMES_ONLY):
            continue
        if not where and any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in _NEUTRAL.get(name, ())
        ):
            continue
        known = name in _NEUTRAL and not where
        allowed = f" or set it to {_NEUTRAL[name][0]!r}" if known else ""
        raise Problem(
            400,
            f"{where}{name[:80]}: this server does not have this setting: leave it out{allowed}",
            code="unsupported_parameter" if known else "unknown_parameter",
            param=f"{where}{name[:80]}",
        )


def _problem(error: ValidationError) -> Problem:
    """Return pydantic's first finding as a sentence."""
    # Of a union, the finding with the deepest place is about the member that was meant; a list is not meant as a text.
    findings = error.errors(include_url=False, include_input=False)
    found = max(findings, key=lambda one: (len(one["loc"]), one["type"] != "string_type"))
    names: list[str | int] = []
    for place, part in enumerate(found["loc"]):
        of_union = isinstance(part, str) and (part[:1].isupper() or "[" in part or part in ("str", "constrained-str"))
        of_parts = part in ("text", "image_url") and isinstance(found["loc"][place - 1], int)
        if not (of_union or of_parts):
            names.append(part)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in names).lstrip(".")
    found["msg"] = found["msg"].removeprefix("Value error, ")
    words = found["msg"][:1].lower() + found["msg"][1:300]
    if found["type"] == "list_type" and any(one["type"] == "string_type" for one in findings):
        words = "input should be a valid string or list"  # neither member of the union was meant
    return Problem(400, f"{where or 'the body'}: {words}", code="invalid_value", param=where or None)


def _check_text(value: object, where: str, depth: int) -> None:
    """Refuse half a surrogate pair in any text: JSON can name it, and it is no character."""
    if depth > 32:
        raise Problem(400, f"{where}: lists or objects within one another more than 32 times: send a flat body")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Problem(
                400, f"{where}: a text has half a surrogate pair (\\ud800 to \\udfff): send valid Unicode"
            ) from None
    elif isinstance(value, dict):
        for name, one in value.items():
            _check_text(name, where, depth + 1)
            _check_text(one, where, depth + 1)
    elif isinstance(value, list):
        for one in value:
            _check_text(one, where, depth + 1)
