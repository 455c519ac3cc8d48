"""Where an answer ends: stop strings, looked for in what a reader sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Stops:
    """The stop strings of a prompt.

    They are looked for in the text without special tokens: "end" is not in `<|im_end|>`. A stop string that holds a
    special token is looked for in the text with special tokens.

    Args:
        tokenizer: Of the model that writes.
        stop: The stop strings.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._special = [mark for mark in stop if _has_special(tokenizer, mark)]
        self._plain = [mark for mark in stop if mark not in self._special]

    def found(self, ids: Sequence[int]) -> bool:
        """Return whether new tokens hold a stop string."""
        text = self._read(ids)
        return any(mark in text for mark in self._plain) or bool(self._cuts(ids))

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of new tokens up to the first stop string, without white space at the ends."""
        return self.cut(ids).strip()

    def cut(self, ids: Sequence[int]) -> str:
        """Return the text of new tokens up to the first stop string."""
        if cuts := self._cuts(ids):
            ends = [len(self._tokenizer.decode(ids[:count])) for count in range(len(ids))]
            ids = ids[: max(count for count, end in enumerate(ends) if end <= min(cuts))]
        text = self._read(ids)
        for mark in self._plain:
            text = text.split(mark, 1)[0]
        return text

    def _cuts(self, ids: Sequence[int]) -> list[int]:
        """Return where stop strings that hold a special token begin in the text with special tokens."""
        text = self._tokenizer.decode(ids) if self._special else ""
        return [text.index(mark) for mark in self._special if mark in text]

    def _read(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _has_special(tokenizer: Any, text: str) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return bool(tokenizer.decode(ids) != tokenizer.decode(ids, skip_special_tokens=True))
