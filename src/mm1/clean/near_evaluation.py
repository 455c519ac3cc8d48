"""Removes documents near an evaluation set: pictures by difference hash, texts by n-grams of words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mm1.clean.minhash import ngram_hashes, token_hashes
from mm1.clean.perceptual import difference_hash, nearest
from mm1.clean.pictures import picture_bytes, picture_key
from mm1.clean.step import Apply, Dropped, Step
from mm1.data.corpus import open_split
from mm1.document import Document
from mm1.errors import UserError
from mm1.progress import track

_FILE = "near-evaluation.npz"


@dataclass(frozen=True)
class NearEvaluation(Step):
    """Drop documents that share a picture or a stretch of text with an evaluation set.

    Attributes:
        against: The evaluation sets, as `corpus/split`.
        max_distance: Most bits of 128 in which the hashes of two pictures may differ if they are the same picture; -1
            ignores pictures. Equal bytes are always the same picture.
        ngram: Number of consecutive words that two near texts share (13 in GPT-3: arXiv 2005.14165, appendix C); 0
            ignores texts. A shorter evaluation text of 8 words or more must be shared completely.
        max_items: An n-gram in more evaluation items than this belongs to their prompt and doesn't count.
    """

    against: tuple[str, ...] = ()
    max_distance: int = 8
    ngram: int = 13
    max_items: int = 10

    def inputs(self) -> dict[str, str]:
        """Return the content hashes of the evaluation sets."""
        return {name: open_split(name).content_hash for name in self.against}

    def prepare(self, folder: Path) -> None:
        """Hash the evaluation sets' pictures and texts.

        Raises:
            UserError: If no evaluation set is named, or one doesn't exist.
        """
        if not self.against:
            raise UserError(
                "step 'near-evaluation': 'against' names no evaluation set: name one, as in [easy-vqa/test]"
            )
        pictures: set[tuple[int, ...]] = set()
        bytes_: set[bytes] = set()
        items: Counter[int] = Counter()
        for name in self.against:
            split = open_split(name)
            for document in track(split, f"hash {split.name}"):
                for image in document.images:
                    data = picture_bytes(image)
                    hash_ = difference_hash(data) if data and self.max_distance >= 0 else None
                    pictures |= {tuple(hash_.tolist())} if hash_ is not None else set()
                    bytes_ |= {picture_key(image)} if self.max_distance >= 0 else set()
                items.update(set(self._evaluation_ngrams(document.text).tolist()))
        ngrams = [ngram for ngram, count in items.items() if count <= self.max_items]
        np.savez(
            folder / _FILE,
            pictures=np.array(sorted(pictures), np.uint64).reshape(-1, 2),
            bytes=np.array(sorted(bytes_), "S16") if bytes_ else np.empty(0, "S16"),
            ngrams=np.sort(np.array(ngrams, np.uint64)),
        )

    def applier(self, folder: Path, rows: range) -> Apply:
        """Return the function that compares documents with the hashes of `prepare`."""
        with np.load(folder / _FILE) as prepared:
            pictures, ngrams = prepared["pictures"], prepared["ngrams"]
            # numpy removes zero bytes at the end of strings.
            same_bytes = {key.ljust(16, b"\0") for key in prepared["bytes"].tolist()}

        def apply(row: int, document: Document, dropped: Dropped) -> Document | None:
            for image in document.images:
                if picture_key(image) in same_bytes:
                    return dropped.drop("a picture of an evaluation set", document)
                data = picture_bytes(image) if self.max_distance >= 0 else None
                hash_ = difference_hash(data) if data else None
                if hash_ is not None and nearest(hash_, pictures) <= self.max_distance:
                    return dropped.drop("a picture near one of an evaluation set", document)
            if self.ngram and len(ngrams):
                tokens = token_hashes(document.text)
                for n in range(min(8, self.ngram), self.ngram + 1):
                    if np.isin(_marked(ngram_hashes(tokens, n), n), ngrams).any():
                        return dropped.drop("text of an evaluation set", document)
            return document

        return apply

    def _evaluation_ngrams(self, text: str) -> np.ndarray:
        tokens = token_hashes(text)
        n = min(self.ngram, len(tokens))
        if not self.ngram or n < min(8, self.ngram):
            return np.empty(0, np.uint64)
        return _marked(ngram_hashes(tokens, n), n)


def _marked(hashes: np.ndarray, n: int) -> np.ndarray:
    """Return hashes that differ from those of n-grams of other lengths."""
    return hashes ^ np.uint64(n * 0x9E3779B97F4A7C15 % 2**64)
