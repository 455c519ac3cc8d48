"""How long the parts of documents are: what the plan knows of a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IMAGE = -1
"""Marks a picture among the part lengths."""

LONG = 16_384
"""Characters from which on a text is long: about a sequence of 4,096 tokens."""


@dataclass(frozen=True)
class LongTexts:
    """The tokens of a split's long texts, kept since pieces of them come at different times in different processes.

    Each piece would have to tokenize all of the text again: two seconds for a million characters, seventy times.

    Attributes:
        parts: (n,) int64, ascending: which parts of the split they are.
        offsets: (n + 1,) int64: where each text's tokens begin in `ids`.
        ids: (number of tokens,) uint32.
    """

    parts: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray

    def __getitem__(self, part: int) -> np.ndarray:
        """Return the tokens of a part.

        Raises:
            KeyError: If it isn't a long text.
        """
        place = int(np.searchsorted(self.parts, part))
        if place == len(self.parts) or self.parts[place] != part:
            raise KeyError(part)
        return self.ids[self.offsets[place] : self.offsets[place + 1]]


@dataclass(frozen=True)
class Index:
    """Part lengths of all documents of a split.

    Attributes:
        parts: (number of parts,) int32: tokens of a text part, or `IMAGE`.
        offsets: (documents + 1,) int64: where each document's parts begin in `parts`.
        target: (number of parts,) bool: whether the part is a text that is a target.
        long_texts: The tokens of texts of `LONG` characters or more; None in what `take` returns.
        sub_images: (number of parts,) int32: how many images a picture becomes, 0 at a text; None: one each.
        chat: (documents,) bool: which documents are conversations; None: none is.
    """

    parts: np.ndarray
    offsets: np.ndarray
    target: np.ndarray
    long_texts: LongTexts | None = None
    sub_images: np.ndarray | None = None
    chat: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, documents: np.ndarray) -> Index:
        """Return the index of some documents, in the order given.

        Args:
            documents: (n,) rows.
        """
        first, counts = self.offsets[documents], self.offsets[documents + 1] - self.offsets[documents]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        which = np.repeat(first - offsets[:-1], counts) + np.arange(offsets[-1])
        sub_images = None if self.sub_images is None else self.sub_images[which]
        chat = None if self.chat is None else self.chat[documents]
        return Index(self.parts[which], offsets, self.target[which], sub_images=sub_images, chat=chat)

    @property
    def images(self) -> np.ndarray:
        """How many images each part becomes: (number of parts,) int32."""
        return (self.parts == IMAGE).astype(np.int32) if self.sub_images is None else self.sub_images
