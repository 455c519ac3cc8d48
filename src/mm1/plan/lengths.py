"""The lengths of documents' parts, from which a plan is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

IMAGE = -1
"""Marks a picture among the lengths of parts."""

LONG = 16_384
"""Number of characters from which a text is long: about a sequence of 4,096 tokens."""

SMALL_SPLIT = 100_000_000
"""Characters of a split up to which all its texts count as long: their tokens take 4 bytes each, as much disk as the
texts or less, and a training that sees the texts many times tokenizes them once."""


def long_from(characters: int) -> int:
    """Return the number of characters from which the tokens of a split's texts are kept.

    Args:
        characters: Of the whole split.
    """
    return 0 if characters <= SMALL_SPLIT else LONG


@dataclass(frozen=True)
class LongTexts:
    """The tokens of a split's long texts.

    The pieces of a long text are needed at different times in different processes. Without this, each piece would
    tokenize the whole text again: two seconds for a million characters, seventy times.

    Attributes:
        parts: (n,) int64 numbers of these parts in the split, ascending.
        offsets: (n + 1,) int64 positions in `ids` where each text's tokens begin.
        ids: (number of tokens,) uint32 token ids.
    """

    parts: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray

    def __getitem__(self, part: int) -> np.ndarray:
        """Return the tokens of a part.

        Raises:
            KeyError: If the part isn't a long text.
        """
        number = int(np.searchsorted(self.parts, part))
        if number == len(self.parts) or self.parts[number] != part:
            raise KeyError(part)
        return self.ids[self.offsets[number] : self.offsets[number + 1]]

    def between(self, first: int, stop: int) -> list[np.ndarray]:
        """Return the tokens of the long texts among a range of parts, one array for each text."""
        begin, end = np.searchsorted(self.parts, (first, stop))
        borders = self.offsets[begin : end + 1].tolist()
        return [self.ids[start:stop] for start, stop in pairwise(borders)]


@dataclass(frozen=True)
class Index:
    """The lengths of all parts of all documents of a split.

    Attributes:
        parts: (number of parts,) int32 tokens of a text part, or `IMAGE`.
        offsets: (documents + 1,) int64 positions in `parts` where each document's parts begin.
        target: (number of parts,) bool, whether the part is a target text.
        long_texts: The tokens of texts of `long_from` characters or more; None in the results of `between` and `take`.
        sub_images: (number of parts,) int32 images that a picture becomes, 0 for a text; None: one image per picture.
        chat: (documents,) bool, whether a document is a conversation; None: none is.
        unusable: Rows of conversations that can't be laid out, by the reason; empty in those results.
    """

    parts: np.ndarray
    offsets: np.ndarray
    target: np.ndarray
    long_texts: LongTexts | None = None
    sub_images: np.ndarray | None = None
    chat: np.ndarray | None = None
    unusable: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def between(self, start: int, stop: int) -> Index:
        """Return the index of a range of documents, whose rows in `unusable` are left out.

        Args:
            start: The first row.
            stop: The row after the last.
        """
        offsets = self.offsets[start : stop + 1]
        parts = slice(int(offsets[0]), int(offsets[-1]))
        sub_images = None if self.sub_images is None else self.sub_images[parts]
        chat = None if self.chat is None else self.chat[start:stop]
        return Index(self.parts[parts], offsets - offsets[0], self.target[parts], sub_images=sub_images, chat=chat)

    def take(self, documents: np.ndarray) -> Index:
        """Return the index of the given documents, in their order.

        Args:
            documents: (n,) rows of the documents.
        """
        first, counts = self.offsets[documents], self.offsets[documents + 1] - self.offsets[documents]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        which = np.repeat(first - offsets[:-1], counts) + np.arange(offsets[-1])
        sub_images = None if self.sub_images is None else self.sub_images[which]
        chat = None if self.chat is None else self.chat[documents]
        return Index(self.parts[which], offsets, self.target[which], sub_images=sub_images, chat=chat)

    def images_between(self, first: int, stop: int) -> np.ndarray:
        """Return the number of images that each of a range of parts becomes: (stop - first,) int32."""
        if self.sub_images is None:
            return (self.parts[first:stop] == IMAGE).astype(np.int32)
        return self.sub_images[first:stop]

    @property
    def images(self) -> np.ndarray:
        """The number of images that each part becomes: (number of parts,) int32."""
        return self.images_between(0, len(self.parts))
