"""Conversations in indexes and plans: counted as the chat template lays them out, and never cut inside an answer.

A conversation's parts are runs here: the tokens between pictures that are, or are not, targets, the template's own
included. Like every document's, its first token and its last are counted apart from its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.plan.lengths import IMAGE
from mm1.processing.chat import ChatLayout, Piece

if TYPE_CHECKING:
    from mm1.plan.lengths import Index


Counts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Parts per document, and per part its tokens (or `IMAGE`) and whether it is a target."""


def count_conversations(
    documents: Iterable[Document], chat: ChatLayout, lengths: Callable[[list[str]], list[int]]
) -> Counts:
    """Count the tokens of documents, some of them conversations.

    Args:
        documents: Their pictures may lack bytes.
        chat: Lays out conversations.
        lengths: From texts to their numbers of tokens.

    Raises:
        UserError: If a conversation can't be laid out.
    """
    laid: list[tuple[Document, Sequence[Piece]]] = [
        (document, chat.lay_out(document) if document.kind == "chat" else document.parts) for document in documents
    ]
    sizes = iter(lengths([piece.text for _, pieces in laid for piece in pieces if isinstance(piece, Text)]))
    counts: list[int] = []
    parts: list[tuple[int, bool]] = []
    for document, pieces in laid:
        found = [
            (IMAGE, False) if isinstance(p, Image) else (next(sizes) if isinstance(p, Text) else 1, p.target)
            for p in pieces
        ]
        runs = _runs(found, document.id) if document.kind == "chat" else found
        counts.append(len(runs))
        parts += runs
    tokens, target = np.array(parts, dtype=np.int64).reshape(-1, 2).T
    return np.array(counts, dtype=np.int64), tokens.astype(np.int32), target.astype(bool)


def _runs(parts: list[tuple[int, bool]], name: str) -> list[tuple[int, bool]]:
    """Join what is alike targets or not, and take off the first and the last token."""
    runs: list[tuple[int, bool]] = []
    for tokens, target in parts:
        if runs and tokens != IMAGE and runs[-1][0] != IMAGE and runs[-1][1] == target:
            runs[-1] = (runs[-1][0] + tokens, target)
        else:
            runs.append((tokens, target))
    for place in (0, -1):
        tokens, target = runs[place]
        if tokens < 1:
            raise UserError(f"document '{name}': the chat template must begin and end with text, not with a picture")
        runs[place] = (tokens - 1, target)
    return runs


@dataclass(frozen=True)
class Fitted:
    """What is left of a split whose conversations must fit a sequence each.

    Attributes:
        index: Conversations that are too long end behind the last answer that fits.
        documents: (n,) rows that are left: all but conversations whose first answer doesn't fit.
        shortened: Rows of conversations that were shortened.
        left_out: Rows of those that were left out.
    """

    index: Index
    documents: np.ndarray
    shortened: np.ndarray
    left_out: np.ndarray


def fit_conversations(index: Index, tokens_per_image: int, max_tokens: int, max_images: int) -> Fitted:
    """Shorten conversations that don't fit a sequence behind an answer, so that none is cut inside one.

    Args:
        index: Of a split.
        tokens_per_image: Tokens an image takes.
        max_tokens: Tokens per sequence.
        max_images: Images per sequence.
    """
    is_image, images = index.parts == IMAGE, index.images
    tokens = np.where(is_image, tokens_per_image * images, index.parts).astype(np.int64)
    ends = [np.concatenate([[0], np.cumsum(values, dtype=np.int64)]) for values in (tokens, images)]
    of_document = [np.diff(values[index.offsets]) for values in ends]
    chat = np.zeros(len(index), dtype=bool) if index.chat is None else index.chat
    long = np.flatnonzero(chat & ((of_document[0] + 2 > max_tokens) | (of_document[1] > max_images)))
    parts, keep = index.parts.copy(), np.ones(len(index.parts), dtype=bool)
    shortened, left_out = [], []
    for document in long.tolist():
        first, last = index.offsets[document : document + 2].tolist()
        # The first token counts before the first part; all others up to an answer's end are in its parts.
        fits = (ends[0][first + 1 : last + 1] - ends[0][first] + 1 <= max_tokens) & (
            ends[1][first + 1 : last + 1] - ends[1][first] <= max_images
        )
        answers = np.flatnonzero(fits & index.target[first:last])
        # The conversation's own last token is counted apart: what ends with its last part is one token longer.
        answers = answers[answers < last - first - 1]
        answers = answers[~is_image[first + answers + 1]]  # an answer goes on behind a picture in it
        if len(answers):
            end = first + int(answers[-1]) + 1
            parts[end - 1] -= 1  # counted apart, as the last token of every document
            keep[end:last] = False
            shortened.append(document)
        else:
            keep[first:last] = False
            left_out.append(document)
    counts = np.add.reduceat(np.append(keep, False), index.offsets[:-1]) if len(index) else np.zeros(0, np.int64)
    counts = np.where(np.diff(index.offsets) > 0, counts, 0)
    fitted = replace(
        index,
        parts=parts[keep],
        target=index.target[keep],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        sub_images=None if index.sub_images is None else index.sub_images[keep],
    )
    documents = np.setdiff1d(np.arange(len(index)), left_out)
    return Fitted(fitted, documents, np.array(shortened, dtype=np.int64), np.array(left_out, dtype=np.int64))
