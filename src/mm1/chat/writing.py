"""Words on the screen while they are made: only what the finished answer begins with is ever written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mm1.evaluate.models.stops import Stops

_INCOMPLETE = "\ufffd"
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class AnswerWriter:
    """Writes an answer as its tokens come.

    Three things wait for what follows them: bytes of an incomplete character, white space at the end (the answer is
    stripped), and what may be the beginning of a stop string. So the pieces that were written make the answer.

    Args:
        stops: The stop strings, as the generator looks for them.
        stop: The stop strings.
        write: Gets one piece after another.
    """

    def __init__(self, stops: Stops, stop: Sequence[str], write: Callable[[str], None]) -> None:
        self._stops = stops
        self._stop = stop
        self._write = write
        self.written = ""
        self.ids: list[int] = []

    def take(self, ids: Sequence[int]) -> None:
        """Write what is sure of an answer.

        Args:
            ids: Its tokens so far.
        """
        self.ids = list(ids)
        self._extend(self._sure(self._stops.text(ids)))

    def end(self, answer: str) -> None:
        """Write the rest of the finished answer."""
        if not answer.startswith(self.written):  # a tokenizer that reads the same tokens in another way
            self._write("\n")
            self.written = ""
        self._extend(answer)

    def _extend(self, text: str) -> None:
        if len(text) > len(self.written) and text.startswith(self.written):
            self._write(text[len(self.written) :])
            self.written = text

    def _sure(self, text: str) -> str:
        text = text.rstrip(_INCOMPLETE)
        held = max((_held(text, mark) for mark in self._stop), default=0)
        return text[: len(text) - held].rstrip()


def _held(text: str, mark: str) -> int:
    """Return how many characters at a text's end may be the beginning of a stop string."""
    return next((count for count in range(len(mark) - 1, 0, -1) if text.endswith(mark[:count])), 0)


def printable(text: str) -> str:
    """Return a text without control characters: a model's words must not move the cursor or set the title."""
    return _CONTROLS.sub("", text)
