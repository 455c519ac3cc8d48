"""An answer as it is written: when it has ended, and what of it can be shown already."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from mm1.evaluate.models.stops import Stops

_UNFINISHED = "\ufffd"
"""What a decoder shows for the bytes of a character that is not complete."""


class Written:
    """The tokens of one answer, and its text so far.

    A piece that was shown is never taken back. So the beginning of a stop string, half a character and, where the
    answer's ends are stripped, white space are held back until it is clear what they become.

    Args:
        tokenizer: Of the model.
        ends: Tokens that end an answer.
        stop: Stop strings.
        most: Tokens of the longest answer.
        strip: Whether white space at the answer's ends is left out.

    Attributes:
        ids: The tokens so far, the one that ended it included.
        finish: Why the answer has ended: `stop` (an end token or a stop string), or `length`; None: it has not.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int], stop: Sequence[str], most: int, *, strip: bool) -> None:
        self._tokenizer = tokenizer
        self._ends = ends
        self._stop = stop
        self._stops = Stops(tokenizer, stop)
        self.most = most
        self._strip = strip
        self._seen = ""
        self._shown = ""
        self._start = self._end = 0
        self.ids: list[int] = []
        self.finish: Literal["stop", "length"] | None = None

    @property
    def text(self) -> str:
        """The text, up to the first stop string."""
        ids = self.ids[:-1] if self.ids and self.ids[-1] in self._ends else self.ids
        return self._stops.text(ids) if self._strip else self._stops.cut(ids)

    def add(self, token: int) -> str:
        """Take a token, and return what can be shown now; `finish` is set when the answer has ended."""
        self.ids.append(token)
        if token in self._ends or (self._stop and self._stops.found(self.ids)):
            self.finish = "stop"
        elif len(self.ids) >= self.most:
            self.finish = "length"
        text = self.text if self.finish else self._settled()
        if not text.startswith(self._shown):
            return ""
        piece = text[len(self._shown) :]
        self._shown += piece
        return piece

    def _settled(self) -> str:
        """Return the text that later tokens don't change."""
        self._read()
        text = self._seen
        held = max((_overlap(text, mark) for mark in self._stop), default=0)
        text = text[: len(text) - held]
        return text.strip() if self._strip else text

    def _read(self) -> None:
        """Decode what is new, with some tokens before it: how a token reads can depend on its neighbour."""
        before = self._decode(self.ids[self._start : self._end])
        now = self._decode(self.ids[self._start :])
        if len(now) > len(before) and not now.endswith(_UNFINISHED):
            self._seen += now[len(before) :]
            self._start, self._end = self._end, len(self.ids)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _overlap(text: str, mark: str) -> int:
    """Return how many characters at the end of a text are the beginning of a stop string."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
