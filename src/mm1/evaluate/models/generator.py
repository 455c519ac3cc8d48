"""The interface that evaluation needs of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mm1.document import Document
from mm1.errors import UserError

Advance = Callable[[int], None]
Answer = str | UserError


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The likelihood of a continuation.

    Attributes:
        total: Sum of its tokens' log-probabilities (natural).
        greedy: Whether each of its tokens is the likeliest one at its position.
        error: The reason why there is no likelihood (a picture can't be decoded), or None.
    """

    total: float
    greedy: bool
    error: UserError | None = None


class ContextTooShort(UserError):  # noqa: N818
    """A prompt and its answer need more tokens than the model takes.

    Attributes:
        index: The prompt's index.
        needed: Tokens of the prompt and of the longest answer.
    """

    def __init__(self, index: int, needed: int, available: int) -> None:
        super().__init__(f"prompt {index + 1} needs {needed:,} tokens, and the model takes {available:,}: shorten it")
        self.index = index
        self.needed = needed


class Generator(Protocol):
    """A model that evaluation can score."""

    @property
    def takes_turns(self) -> bool:
        """Whether prompts must be conversations: an MM1 model that was fine-tuned on them."""
        ...

    @property
    def max_context(self) -> int:
        """The number of tokens that the model takes, prompt and answer together."""
        ...

    def count_tokens(self, prompt: Document) -> int:
        """Return the number of tokens of a prompt, including image tokens."""
        ...

    def log_likelihoods(
        self, prompts: Sequence[Document], continuations: Sequence[str], *, advance: Advance | None = None
    ) -> list[Likelihood]:
        """Return the likelihood of each continuation after its prompt.

        After a conversation it is the assistant's answer, which gets the white space that the chat template puts there.

        Raises:
            ContextTooShort: If a prompt with its continuation doesn't fit.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Document],
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        advance: Advance | None = None,
    ) -> list[Answer]:
        """Return each prompt's continuation up to the first stop string, without white space at the ends.

        A prompt with a picture that can't be decoded gets the error instead. `advance` gets the number of prompts that
        are done.

        Raises:
            ContextTooShort: If a prompt and `max_new_tokens` don't fit.
        """
        ...
