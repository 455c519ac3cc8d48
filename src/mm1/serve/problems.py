"""What is wrong with a request, in OpenAI's form: a status, a sentence, a kind and a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Problem(Exception):  # noqa: N818 - most are the client's mistakes
    """A request that is not answered, and why.

    Args:
        status: The HTTP status.
        message: One sentence: what is wrong, and what to do.
        code: A word for programs.
        param: The part of the request that is meant, such as `messages[0].content`.
        headers: Headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the response's body, as OpenAI's clients read it."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {key: printable(value) for key, value in error.items()}}


def printable(text: str | None) -> str | None:
    """Return text that UTF-8 can carry: half a surrogate pair, which JSON may name, becomes a question mark."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def too_slow(seconds: float) -> Problem:
    """Return the problem of an answer that is not done in time."""
    message = f"the answer was not done within {seconds:g} s: ask for fewer tokens (max_tokens), or ask again later"
    # OpenAI's client would ask twice more by itself, and add to what made this one late.
    return Problem(504, message, code="timeout", headers={"x-should-retry": "false"})
