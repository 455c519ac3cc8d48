"""The one function from a document to tokens: pre-training, fine-tuning, evaluation and use share it.

    [BOS] text tokens, <image> x tokens_per_image, text tokens, ... [EOS]

Every part is tokenized on its own, so that a document's tokens are its parts' tokens joined, whatever was
put together from what. Text is plain text: the characters "<image>" in it never become the image token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from mm1.document import Document, Image, Text


@dataclass(frozen=True)
class EncodedDocument:
    """A document as tokens.

    Attributes:
        input_ids: (T,) int64.
        learned: (T,) bool: whether the token is a target of the language-model loss.
        images: The pictures, in reading order.
        image_starts: (len(images),) int64: index of each picture's first token in `input_ids`.
    """

    input_ids: np.ndarray
    learned: np.ndarray
    images: tuple[Image, ...]
    image_starts: np.ndarray


def encode_document(
    document: Document,
    tokenizer: PreTrainedTokenizerBase,
    image_token_id: int,
    tokens_per_image: int,
    *,
    close: bool = True,
) -> EncodedDocument:
    """Turn a document into tokens.

    Args:
        document: Text and pictures.
        tokenizer: Must have a BOS and an EOS token.
        image_token_id: The placeholder that stands where image features go.
        tokens_per_image: How many placeholders a picture takes.
        close: Whether EOS follows. Prompts are left open. EOS is learned if the last text is.

    Returns:
        The tokens, which of them are learned, and where the pictures stand.
    """
    pieces: list[np.ndarray] = [np.array([tokenizer.bos_token_id])]
    learned: list[np.ndarray] = [np.array([False])]
    starts: list[int] = []
    length, last_learned = 1, True
    text_ids = iter(_tokenize(document, tokenizer))
    for part in document.parts:
        if isinstance(part, Text):
            ids, last_learned = np.array(next(text_ids), dtype=np.int64), part.learned
        else:
            ids = np.full(tokens_per_image, image_token_id)
            starts.append(length)
        pieces.append(ids)
        learned.append(np.full(len(ids), isinstance(part, Text) and part.learned))
        length += len(ids)
    if close:
        pieces.append(np.array([tokenizer.eos_token_id]))
        learned.append(np.array([last_learned]))
    return EncodedDocument(
        np.concatenate(pieces).astype(np.int64),
        np.concatenate(learned),
        document.images,
        np.array(starts, dtype=np.int64),
    )


def _tokenize(document: Document, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    texts = [part.text for part in document.parts if isinstance(part, Text)]
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
