"""What the server takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of one server.

    Attributes:
        body_bytes: Bytes of a request.
        pixels: Pixels of all pictures of a request together, as they are stored.
        max_tokens: Tokens of an answer.
        queue: Requests that wait while a batch is being answered.
        seconds: From a request to the end of its answer.
        batch_size: Requests that are answered together.
        hosts: Hosts whose pictures are fetched, as `HOST` or `HOST:PORT`.
    """

    body_bytes: int = 20 << 20
    pixels: int = 64_000_000
    max_tokens: int = 512
    queue: int = 64
    seconds: float = 120.0
    batch_size: int = 16
    hosts: tuple[str, ...] = ()

    @property
    def accepted(self) -> int:
        """Requests that may be under way at once."""
        return self.queue + self.batch_size
