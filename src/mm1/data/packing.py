"""Packing: documents cut to pieces that fit, pieces put together into sequences.

Two limits hold together: tokens and images per sequence. Pieces are placed by best fit, the largest first,
over large blocks (best fit decreasing; "Fewer Truncations Improve Language Modeling", arXiv 2404.10830, uses
the same for text). A document is cut only when it can't fit into one sequence, and then between parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mm1.data.index import IMAGE, Index
from mm1.errors import UserError

BLOCK = 65_536
"""Pieces packed together; larger blocks fill better and take more memory."""


@dataclass(frozen=True)
class Pieces:
    """Stretches of documents, each placed whole into one sequence.

    Attributes:
        document: (P,) int64 row in the split.
        first: (P,) int32 first token, counted in the encoded document.
        length: (P,) int32 tokens.
        images: (P,) int32 pictures among them.
    """

    document: np.ndarray
    first: np.ndarray
    length: np.ndarray
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.document)


def cut_documents(index: Index, tokens_per_image: int, max_tokens: int, max_images: int) -> Pieces:
    """Cut documents into pieces that each fit a sequence; most documents stay whole.

    A document has BOS before and EOS behind its parts. One that exceeds a limit is cut between parts; a text
    longer than a sequence is cut inside. Every token is in exactly one piece.

    Args:
        index: Part lengths.
        tokens_per_image: Tokens a picture takes.
        max_tokens: Tokens per sequence.
        max_images: Pictures per sequence.

    Raises:
        UserError: If not even one picture fits a sequence.
    """
    if tokens_per_image > max_tokens and (index.parts == IMAGE).any():
        raise UserError(
            f"data.sequence_length {max_tokens} is shorter than one picture ({tokens_per_image} tokens): "
            "make sequences longer or use fewer tokens per image"
        )
    is_image = index.parts == IMAGE
    tokens = np.where(is_image, tokens_per_image, index.parts).astype(np.int64)
    token_sums = np.concatenate([[0], np.cumsum(tokens)])[index.offsets]
    image_sums = np.concatenate([[0], np.cumsum(is_image)])[index.offsets]
    length = np.diff(token_sums) + 2
    images = np.diff(image_sums)
    whole = (length <= max_tokens) & (images <= max_images)
    rows = [(np.flatnonzero(whole), np.zeros(whole.sum(), np.int64), length[whole], images[whole])]
    for document in np.flatnonzero(~whole):
        start, stop = index.offsets[document : document + 2]
        cuts = _cut(tokens[start:stop], is_image[start:stop], max_tokens, max_images)
        first, size, pictures = np.array(cuts, dtype=np.int64).T
        rows.append((np.full(len(cuts), document), first, size, pictures))
    owner, first, size, pictures = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.lexsort((first, owner))
    return Pieces(
        owner[order].astype(np.int64),
        first[order].astype(np.int32),
        size[order].astype(np.int32),
        pictures[order].astype(np.int32),
    )


def _cut(tokens: np.ndarray, is_image: np.ndarray, max_tokens: int, max_images: int) -> list[tuple[int, int, int]]:
    """Return (first, length, images) of the pieces of one document that is too large for a sequence."""
    # BOS and EOS are parts of one token here.
    lengths = [1, *tokens.tolist(), 1]
    pictures = [0, *is_image.astype(int).tolist(), 0]
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
    """Put pieces together into sequences.

    Args:
        pieces: What to place; each fits a sequence.
        order: (P,) indices into `pieces`: all of them, in the epoch's random order.
        max_tokens: Tokens per sequence.
        max_images: Pictures per sequence.

    Returns:
        For every sequence, the indices of its pieces.
    """
    sequences: list[np.ndarray] = []
    for start in range(0, len(order), BLOCK):
        sequences += _pack_block(pieces, order[start : start + BLOCK], max_tokens, max_images)
    return sequences


def _pack_block(pieces: Pieces, block: np.ndarray, max_tokens: int, max_images: int) -> list[np.ndarray]:
    length, images = pieces.length[block], pieces.images[block]
    share = np.maximum(length / max_tokens, images / max_images)
    largest_first = np.argsort(-share, kind="stable")
    # Open sequences by room left: room[t][i] lists those with t free tokens and i free images;
    # most_images[t] is the largest such i, -1 if there is none.
    room: list[dict[int, list[int]]] = [{} for _ in range(max_tokens + 1)]
    most_images = np.full(max_tokens + 1, -1, dtype=np.int32)
    members: list[list[int]] = []
    for place in largest_first.tolist():
        need, pictures = int(length[place]), int(images[place])
        fits = most_images[need:] >= pictures
        best = int(fits.argmax())
        if fits[best]:
            free = need + best
            free_images = min(i for i in room[free] if i >= pictures)
            number = room[free][free_images].pop()
            if not room[free][free_images]:
                del room[free][free_images]
                most_images[free] = max(room[free], default=-1)
        else:
            free, free_images, number = max_tokens, max_images, len(members)
            members.append([])
        members[number].append(place)
        room[free - need].setdefault(free_images - pictures, []).append(number)
        most_images[free - need] = max(most_images[free - need], free_images - pictures)
    return [block[np.array(sorted(sequence))] for sequence in members]
