"""The one function from a document to tokens: pre-training, fine-tuning, evaluation and use share it.

    [BOS] text tokens, <image> x tokens_per_image x sub-images, text tokens, ... [EOS]

Every part is tokenized on its own, so that a document's tokens are its parts' tokens joined, whatever was
put together from what. Text is plain text: the characters "<image>" in it never become the image token.
Conversations are laid out by the chat template first, which says where they begin and end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.processing.chat import ChatLayout, Piece, Special


@dataclass(frozen=True)
class EncodedDocument:
    """A document as tokens.

    Attributes:
        input_ids: (T,) int64.
        target: (T,) bool: whether the token is a target of the language-model loss.
        images: The pictures, in reading order.
        image_starts: (len(images),) int64: index of each picture's first token in `input_ids`.
        image_lengths: (len(images),) int64: tokens of each picture, those of all its sub-images.
    """

    input_ids: np.ndarray
    target: np.ndarray
    images: tuple[Image, ...]
    image_starts: np.ndarray
    image_lengths: np.ndarray

    @property
    def learned(self) -> np.ndarray:
        """The older name of `target`."""
        return self.target


def encode_document(
    document: Document,
    tokenizer: PreTrainedTokenizerBase,
    image_token_id: int,
    tokens_per_image: int,
    *,
    close: bool = True,
    text_ids: Sequence[Sequence[int] | np.ndarray] | None = None,
    sub_images: Sequence[int] | None = None,
    chat: ChatLayout | None = None,
) -> EncodedDocument:
    """Turn a document into tokens.

    Args:
        document: Text and pictures.
        tokenizer: Must have a BOS and an EOS token.
        image_token_id: The placeholder that stands where image features go.
        tokens_per_image: How many placeholders an image takes.
        close: Whether EOS follows. Prompts are left open. EOS is a target if the last text is.
        text_ids: The tokens of every text, if they are known; default: `tokenize_texts`. Not for conversations.
        sub_images: How many images each picture becomes; default: one each.
        chat: Lays out conversations.

    Returns:
        The tokens, which of them are targets, and where the pictures stand.

    Raises:
        UserError: If a conversation can't be laid out.
    """
    pieces = document_pieces(document, tokenizer, chat, close=close)
    if text_ids is None:
        text_ids = tokenize_texts([piece.text for piece in pieces if isinstance(piece, Text)], tokenizer)
    image_lengths = [tokens_per_image * count for count in sub_images or [1] * len(document.images)]
    total = sum(map(len, text_ids)) + sum(image_lengths) + sum(isinstance(piece, Special) for piece in pieces)
    input_ids = np.full(total, image_token_id, dtype=np.int64)
    target = np.zeros(total, dtype=bool)
    starts: list[int] = []
    supply = iter(text_ids)
    end = 0
    for piece in pieces:
        start = end
        if isinstance(piece, Image):
            end += image_lengths[len(starts)]
            starts.append(start)
            continue
        ids = next(supply) if isinstance(piece, Text) else [piece.id]
        end += len(ids)
        input_ids[start:end], target[start:end] = ids, piece.target
    where = (np.array(places, dtype=np.int64) for places in (starts, image_lengths))
    return EncodedDocument(input_ids, target, document.images, *where)


def document_pieces(
    document: Document, tokenizer: PreTrainedTokenizerBase, chat: ChatLayout | None = None, *, close: bool = True
) -> list[Piece]:
    """Return what a document's tokens are made of, special tokens at its ends and between its turns included.

    Raises:
        UserError: If a conversation can't be laid out.
    """
    if document.kind == "chat":
        if chat is None:
            raise UserError(f"document '{document.id}' is a conversation, and this model has no chat template")
        return chat.lay_out(document, close=close)
    pieces: list[Piece] = [Special(tokenizer.bos_token_id), *document.parts]
    if close:
        last_is_target = next((part.target for part in reversed(document.parts) if isinstance(part, Text)), True)
        pieces.append(Special(tokenizer.eos_token_id, last_is_target))
    return pieces


def tokenize_texts(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the tokens of texts, each on its own."""
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
