"""Packing: cuts documents into pieces that fit a sequence, and joins pieces into sequences.

A sequence has two limits, tokens and images; every sub-image of a picture counts, since the vision tower processes
each. A sequence begins with the largest remaining piece, continues with random ones, and ends with the two that fill it
best, which a table of the pieces by length finds. "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830)
explains why documents should stay whole; its best fit decreasing fills as well if one limit binds, and worse if both do
(benchmarks/README.md). A document is cut only if it doesn't fit one sequence, and then between parts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from mm1.errors import UserError
from mm1.plan.lengths import IMAGE, Index

BLOCK = 65_536
"""Number of pieces that are packed at a time; larger blocks fill better and take more memory."""

_TRIES = 16
_MAX_WASTE = 48
_NONE = 1 << 20


@dataclass(frozen=True)
class Pieces:
    """Stretches of documents; each is placed completely in one sequence.

    Attributes:
        document: (P,) int64 row of the document in the split.
        first: (P,) int32 index of the first token in the encoded document.
        length: (P,) int32 number of tokens.
        images: (P,) int32 number of images; each sub-image counts.
        target: (P,) int32 number of target tokens. A piece's first token is never one, since no token before it could
            predict it.
    """

    document: np.ndarray
    first: np.ndarray
    length: np.ndarray
    images: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.document)


def cut_documents(index: Index, tokens_per_image: int, max_tokens: int, max_images: int) -> Pieces:
    """Cut documents into pieces that each fit a sequence; most documents stay whole.

    A document has BOS before and EOS after its parts. A document that exceeds a limit is cut between parts; a text
    longer than a sequence is cut inside. Every token is in exactly one piece.

    Args:
        index: The lengths of parts.
        tokens_per_image: Tokens per image.
        max_tokens: Tokens per sequence.
        max_images: Images per sequence.

    Returns:
        The pieces, in the order of documents.

    Raises:
        UserError: If one picture doesn't fit a sequence.
    """
    is_image, in_part = index.parts == IMAGE, index.images
    most = int(in_part.max(initial=0))
    if tokens_per_image * most > max_tokens:
        raise UserError(
            f"data.sequence_length {max_tokens} is shorter than one picture ({tokens_per_image * most} tokens): raise "
            "it, or use fewer tokens per image"
        )
    if most > max_images:
        raise UserError(
            f"data.images_per_sequence {max_images} is less than the {most} sub-images of one picture: raise it, or "
            "cut pictures into fewer sub-images"
        )
    tokens = np.where(is_image, tokens_per_image * in_part, index.parts).astype(np.int64)
    closing_target = _closing_target(index, is_image)
    length = document_sums(tokens, index.offsets) + 2
    images = document_sums(in_part, index.offsets)
    target = document_sums(np.where(index.target, tokens, 0), index.offsets) + closing_target
    whole = (length <= max_tokens) & (images <= max_images)
    rows = [(np.flatnonzero(whole), np.zeros(whole.sum(), np.int64), length[whole], images[whole], target[whole])]
    for document in np.flatnonzero(~whole):
        parts = slice(*index.offsets[document : document + 2])
        # Here BOS and EOS count as parts of one token.
        sizes = np.concatenate([[1], tokens[parts], [1]])
        is_target = np.concatenate([[False], index.target[parts], [closing_target[document]]])
        cuts = _cut(sizes.tolist(), [0, *in_part[parts].tolist(), 0], max_tokens, max_images)
        first, size, pictures = np.array(cuts, dtype=np.int64).T
        rows.append((np.full(len(cuts), document), first, size, pictures, _targets_in(sizes, is_target, first, size)))
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    dtypes = (np.int64, np.int32, np.int32, np.int32, np.int32)
    return Pieces(*(column[order].astype(dtype) for column, dtype in zip(columns, dtypes, strict=True)))


def document_sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the sums of values over each document's parts."""
    return np.diff(np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[offsets])


def _closing_target(index: Index, is_image: np.ndarray) -> np.ndarray:
    """Return whether each document's EOS is a target: if its last text is one, or if it has no text.

    The rule is the same as in `encode_document`.
    """
    if not len(index.parts):
        return np.ones(len(index), dtype=bool)
    last_text = np.maximum.accumulate(np.concatenate([[-1], np.where(is_image, -1, np.arange(len(is_image)))]))
    last = last_text[index.offsets[1:]]
    return (last < index.offsets[:-1]) | index.target[last]


def _targets_in(sizes: np.ndarray, is_target: np.ndarray, first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return the number of target tokens in each piece of a document whose parts have `sizes` tokens."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    targets_before = np.concatenate([[0], np.cumsum(np.where(is_target, sizes, 0))])
    return np.rint(np.interp(first + length, ends, targets_before) - np.interp(first + 1, ends, targets_before))


def _cut(lengths: list[int], pictures: list[int], max_tokens: int, max_images: int) -> list[tuple[int, int, int]]:
    """Return (first, length, images) for the pieces of a document that is too large for one sequence."""
    cuts: list[tuple[int, int, int]] = []
    first = size = images = 0
    for length, picture in zip(lengths, pictures, strict=True):
        fits_alone = length <= max_tokens
        if size and fits_alone and (size + length > max_tokens or images + picture > max_images):
            cuts.append((first, size, images))
            first, size, images = first + size, 0, 0
        size, images = size + length, images + picture
        while size > max_tokens:
            cuts.append((first, max_tokens, images))
            first, size, images = first + max_tokens, size - max_tokens, 0
    if size:
        cuts.append((first, size, images))
    return cuts


def pack(pieces: Pieces, order: np.ndarray, max_tokens: int, max_images: int) -> list[np.ndarray]:
    """Pack pieces into sequences.

    Args:
        pieces: The pieces; each fits a sequence.
        order: (P,) indices of all pieces, in the epoch's random order.
        max_tokens: Tokens per sequence.
        max_images: Images per sequence.

    Returns:
        The indices of the pieces of every sequence.
    """
    sequences: list[np.ndarray] = []
    for start in range(0, len(order), BLOCK):
        sequences += _pack_block(pieces, order[start : start + BLOCK], max_tokens, max_images)
    return sequences


def _pack_block(pieces: Pieces, block: np.ndarray, max_tokens: int, max_images: int) -> list[np.ndarray]:
    """Fill one sequence after the other: the largest remaining piece, then random ones, then the best two."""
    length, images = pieces.length[block].tolist(), pieces.images[block].tolist()
    share = np.maximum(pieces.length[block] / max_tokens, pieces.images[block] / max_images)
    largest_first = iter(np.argsort(-share, kind="stable").tolist())
    waiting = deque(range(len(block)))
    pool = _Pool(length, images, max_tokens)
    almost_full = 2 * sum(length) / len(length)
    sequences: list[np.ndarray] = []
    while len(pool):
        first = next(piece for piece in largest_first if piece not in pool.taken)
        pool.take(first)
        members, tokens, pictures = [first], max_tokens - length[first], max_images - images[first]
        passed: list[int] = []
        while tokens > almost_full and pictures > 2 and waiting and len(passed) < _TRIES:
            piece = waiting.popleft()
            if piece in pool.taken:
                continue
            if length[piece] > tokens or images[piece] > pictures:
                passed.append(piece)
                continue
            pool.take(piece)
            members.append(piece)
            tokens, pictures = tokens - length[piece], pictures - images[piece]
        waiting.extendleft(reversed(passed))
        while fitting := pool.best(tokens, pictures):
            for piece in fitting:
                pool.take(piece)
                members.append(piece)
                tokens, pictures = tokens - length[piece], pictures - images[piece]
        sequences.append(block[np.array(sorted(members))])
    return sequences


class _Pool:
    """The remaining pieces, by length.

    Args:
        length: Tokens of each piece.
        images: Images of each piece.
        max_tokens: Length of the longest possible piece.
    """

    def __init__(self, length: list[int], images: list[int], max_tokens: int) -> None:
        self.length, self.images = length, images
        self.taken: set[int] = set()
        # by_length[t][i] lists the pieces of t tokens and i images; fewest[t] is the smallest such i.
        self.by_length: list[dict[int, list[int]]] = [{} for _ in range(max_tokens + 1)]
        # The lengths below 0, which no piece has, are there for `_totals_of_two`.
        self._from_negative = np.full(_MAX_WASTE + max_tokens + 1, _NONE, dtype=np.int32)
        self.fewest = self._from_negative[_MAX_WASTE:]
        for piece in reversed(range(len(length))):
            self.by_length[length[piece]].setdefault(images[piece], []).append(piece)
        for tokens, by_images in enumerate(self.by_length):
            if by_images:
                self.fewest[tokens] = min(by_images)

    def __len__(self) -> int:
        return len(self.length) - len(self.taken)

    def take(self, piece: int) -> None:
        """Remove a piece."""
        self.taken.add(piece)
        by_images = self.by_length[self.length[piece]]
        same = by_images[self.images[piece]]
        if same[-1] == piece:  # the fast case
            same.pop()
        else:
            same.remove(piece)
        if not same:
            del by_images[self.images[piece]]
            self.fewest[self.length[piece]] = min(by_images, default=_NONE)

    def best(self, tokens: int, images: int) -> list[int]:
        """Return the one or two pieces that leave the fewest tokens free; empty if none fits."""
        fits = self.fewest[tokens::-1] <= images
        shorter_than_all = int(fits.argmax())
        if not fits[shorter_than_all]:
            return []
        longest = tokens - shorter_than_all
        # Two pieces are better than the longest single one if together they are longer.
        for total in self._totals_of_two(max(longest + 1, tokens - _MAX_WASTE), min(tokens, 2 * longest), images):
            shorter, longer = self.fewest[: total // 2 + 1], self.fewest[total - total // 2 : total + 1][::-1]
            for one in np.flatnonzero(shorter + longer <= images)[::-1].tolist():
                same = 2 * one == total
                pair = self._two_of(one, images) if same else [self._one_of(one), self._one_of(total - one)]
                if pair:
                    return pair
        return [self._one_of(longest)]

    def _totals_of_two(self, least: int, most: int, images: int) -> list[int]:
        """Return the lengths, the largest first, that some piece and another one, or itself, have together."""
        if least > most:
            return []
        ones = self._from_negative[_MAX_WASTE : _MAX_WASTE + most // 2 + 1]
        # others[row, one] is fewest[most - row - one], without a copy.
        others = np.ndarray(
            (most - least + 1, len(ones)), np.int32, self._from_negative, 4 * (_MAX_WASTE + most), (-4, -4)
        )
        return (most - np.flatnonzero((ones + others <= images).any(axis=1))).tolist()

    def _one_of(self, tokens: int) -> int:
        return self.by_length[tokens][int(self.fewest[tokens])][-1]

    def _two_of(self, tokens: int, images: int) -> list[int]:
        """Return the two pieces of a length with the fewest images; empty if they have more than `images`."""
        by_images = self.by_length[tokens]
        cheapest = [piece for count in sorted(by_images) for piece in by_images[count][-2:]][:2]
        fit = len(cheapest) == 2 and sum(self.images[piece] for piece in cheapest) <= images
        return cheapest if fit else []
