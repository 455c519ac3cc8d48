"""Conversations in indexes and plans: counts them in the chat template's layout, and never cuts them inside an answer.

The parts of a conversation are runs here: consecutive tokens between pictures that all are targets, or all are not,
including the template's tokens. As in every document, the first and the last token are not counted in the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.files import whole_folder
from mm1.plan.arrays import ArrayWriter, map_array
from mm1.plan.lengths import IMAGE
from mm1.processing.chat import ChatLayout, Piece

if TYPE_CHECKING:
    from mm1.plan.lengths import Index

_FILES = {
    "parts": np.int32,
    "offsets": np.int64,
    "target": np.bool_,
    "sub_images": np.int32,
    "documents": np.int64,
    "shortened": np.int64,
    "left_out": np.int64,
}
_DOCUMENTS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Counts:
    """What documents were counted to have.

    Attributes:
        parts: (documents,) int64: number of parts of each document.
        tokens: (parts,) int32: tokens of each part, or `IMAGE`.
        target: (parts,) bool: whether the part is a target.
        unusable: Why the template can't lay out some conversations, by their position. No plan has them; their pictures
            are among the parts, as those of every document.
    """

    parts: np.ndarray
    tokens: np.ndarray
    target: np.ndarray
    unusable: dict[int, str]


def count_conversations(
    documents: Iterable[Document], chat: ChatLayout, lengths: Callable[[list[str]], list[int]]
) -> Counts:
    """Count the tokens of documents, some of which are conversations.

    Args:
        documents: The documents; their pictures may lack bytes.
        chat: The layout of conversations.
        lengths: Maps texts to their numbers of tokens.
    """
    layouts: list[Sequence[Piece]] = []
    unusable: dict[int, str] = {}
    is_chat: list[bool] = []
    for position, document in enumerate(documents):
        pieces: Sequence[Piece] = document.parts
        if document.kind == "chat":
            try:
                pieces = _laid_out(document, chat)
            except UserError as error:
                unusable[position] = str(error).removeprefix(f"document '{document.id}': ")
        layouts.append(pieces)
        is_chat.append(document.kind == "chat" and position not in unusable)
    sizes = iter(lengths([piece.text for pieces in layouts for piece in pieces if isinstance(piece, Text)]))
    counts: list[int] = []
    parts: list[tuple[int, bool]] = []
    for in_runs, pieces in zip(is_chat, layouts, strict=True):
        counted = [
            (IMAGE, False) if isinstance(p, Image) else (next(sizes) if isinstance(p, Text) else 1, p.target)
            for p in pieces
        ]
        runs = _runs(counted) if in_runs else counted
        counts.append(len(runs))
        parts += runs
    tokens, target = np.array(parts, dtype=np.int64).reshape(-1, 2).T
    return Counts(np.array(counts, dtype=np.int64), tokens.astype(np.int32), target.astype(bool), unusable)


def _laid_out(document: Document, chat: ChatLayout) -> list[Piece]:
    """Return the pieces of a conversation.

    Raises:
        UserError: If it can't be laid out, or there is no token before its first picture or after its last.
    """
    pieces = chat.lay_out(document)
    if len(pieces) < 2:  # a token that would be the first and the last
        raise UserError(f"document '{document.id}': there is nothing in it as the chat template lays it out")
    for piece, end in ((pieces[0], "begins"), (pieces[-1], "ends")):
        if isinstance(piece, Image):
            raise UserError(f"document '{document.id}': it {end} with a picture as the chat template lays it out")
    return pieces


def _runs(parts: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """Join consecutive texts that all are targets, or all are not, and remove the first and the last token."""
    runs: list[tuple[int, bool]] = []
    for tokens, target in parts:
        if runs and tokens != IMAGE and runs[-1][0] != IMAGE and runs[-1][1] == target:
            runs[-1] = (runs[-1][0] + tokens, target)
        else:
            runs.append((tokens, target))
    for end in (0, -1):
        tokens, target = runs[end]
        runs[end] = (tokens - 1, target)
    return runs


@dataclass(frozen=True)
class FittedConversations:
    """The documents of a split after its conversations have been fitted to a sequence each; all arrays are mapped.

    Attributes:
        index: The index; a conversation that is too long ends after the last answer that fits.
        documents: (n,) rows of the remaining documents: all but conversations whose first answer doesn't fit, and those
            that can't be laid out.
        shortened: Rows of shortened conversations.
        left_out: Rows of conversations whose first answer doesn't fit.
    """

    index: Index
    documents: np.ndarray
    shortened: np.ndarray
    left_out: np.ndarray


def fit_conversations(
    index: Index, tokens_per_image: int, max_tokens: int, max_images: int, folder: Path
) -> FittedConversations:
    """Shorten conversations that don't fit a sequence; they end after an answer, never inside one.

    The result is read from the folder if it is there, otherwise made, from a range of documents after another.

    Args:
        index: The split's index.
        tokens_per_image: Tokens per image.
        max_tokens: Tokens per sequence.
        max_images: Images per sequence.
        folder: The folder of the result, whose name tells all that it is made from.

    Raises:
        UserError: If it can't be written.
    """
    names = [name for name in _FILES if name != "sub_images" or index.sub_images is not None]
    if not folder.is_dir():
        try:
            with whole_folder(folder, shared=True) as new, ExitStack() as stack:
                writers = {name: stack.enter_context(ArrayWriter(new / f"{name}.npy", _FILES[name])) for name in names}
                writers["offsets"].write([0])
                unusable = np.array(sorted(row for rows in index.unusable.values() for row in rows), dtype=np.int64)
                for start in range(0, len(index), _DOCUMENTS_AT_ONCE):
                    stop = min(start + _DOCUMENTS_AT_ONCE, len(index))
                    here = unusable[slice(*unusable.searchsorted([start, stop]))] - start
                    some = index.between(start, stop)
                    fitted = _fit_some(some, here, tokens_per_image, max_tokens, max_images)
                    fitted["offsets"] += writers["parts"].length
                    for name in ("documents", "shortened", "left_out"):
                        fitted[name] += start
                    for name in names:
                        writers[name].write(fitted[name])
        except OSError as error:
            raise UserError(f"{folder}: the index can't be written ({error}): free some space") from error
    arrays = {name: map_array(folder / f"{name}.npy") for name in names}
    cut = replace(
        index,
        parts=arrays["parts"],
        offsets=arrays["offsets"],
        target=arrays["target"],
        sub_images=arrays.get("sub_images"),
    )
    return FittedConversations(cut, arrays["documents"], arrays["shortened"], arrays["left_out"])


def _fit_some(
    index: Index, unusable: np.ndarray, tokens_per_image: int, max_tokens: int, max_images: int
) -> dict[str, np.ndarray]:
    """Return the arrays of `_FILES` for some documents, rows and offsets counted from the first of them."""
    is_image, images = index.parts == IMAGE, index.images
    tokens = np.where(is_image, tokens_per_image * images, index.parts).astype(np.int64)
    ends = [np.concatenate([[0], np.cumsum(values, dtype=np.int64)]) for values in (tokens, images)]
    of_document = [np.diff(values[index.offsets]) for values in ends]
    chat = np.zeros(len(index), dtype=bool) if index.chat is None else index.chat.copy()
    chat[unusable] = False
    long = np.flatnonzero(chat & ((of_document[0] + 2 > max_tokens) | (of_document[1] > max_images)))
    parts, keep = index.parts.copy(), np.ones(len(index.parts), dtype=bool)
    for document in unusable.tolist():
        keep[index.offsets[document] : index.offsets[document + 1]] = False
    shortened, left_out = [], []
    for document in long.tolist():
        first, last = index.offsets[document : document + 2].tolist()
        # The first token counts in addition to the parts; all other tokens up to an answer's end are in the parts.
        fits = (ends[0][first + 1 : last + 1] - ends[0][first] + 1 <= max_tokens) & (
            ends[1][first + 1 : last + 1] - ends[1][first] <= max_images
        )
        answers = np.flatnonzero(fits & index.target[first:last])
        # The last token of the conversation isn't counted in the parts, so the last part is one token longer.
        answers = answers[answers < last - first - 1]
        answers = answers[~is_image[first + answers + 1]]  # an answer continues after a picture in it
        if len(answers):
            end = first + int(answers[-1]) + 1
            parts[end - 1] -= 1  # the last token of a document isn't counted in its parts
            keep[end:last] = False
            shortened.append(document)
        else:
            keep[first:last] = False
            left_out.append(document)
    fitted = {
        "parts": parts[keep],
        "target": index.target[keep],
        "offsets": np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])[index.offsets[1:]],
        "documents": np.setdiff1d(np.arange(len(index)), [*left_out, *unusable]),
        "shortened": np.array(shortened, dtype=np.int64),
        "left_out": np.array(left_out, dtype=np.int64),
    }
    return fitted if index.sub_images is None else {**fitted, "sub_images": index.sub_images[keep]}
