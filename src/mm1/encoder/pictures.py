"""Pictures with their captions, in the order of a plan.

    index --documents of one picture--> plan (one document per sequence) --crop, tokenize--> EncoderBatch

The plan is the same as in multimodal training. Since every document has one picture and a sequence takes one, every
sequence is one document. A picture's random choices (crop, mirroring, AIM's prefix) depend on the seed and on the
sequence's number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from mm1.data.corpus import Split
from mm1.data.read_ahead import read_documents
from mm1.data.sources import SourceError
from mm1.document import KINDS, Document
from mm1.encoder.augment import augment
from mm1.errors import UserError
from mm1.plan.arrays import map_array, mapped_file
from mm1.plan.loader import TrainingBatch
from mm1.plan.plan import Plan
from mm1.processing.images import ImageError, decode_image
from mm1.recipe import EncoderDataRecipe

_CAPTION_STEP = 8
"""The captions of a micro-batch are padded to a multiple of so many tokens, so there are few shapes."""
_TRIES = 100
"""Unreadable pictures in a row after which no other one is tried; training stops at that number anyway."""


def caption_of(document: Document) -> str:
    """Return a document's text, which is its picture's caption."""
    return document.text.strip()


@dataclass
class PictureSample:
    """A picture with its caption, prepared for training.

    Attributes:
        pixel_values: (3, H, W) uint8 pixels.
        caption: The caption.
        kind: Index into `mm1.document.KINDS`.
        draw: A random number from [0, 1) for the objective.
        bad_images: One sentence for each unreadable picture that this one replaces.
    """

    pixel_values: np.ndarray
    caption: str
    kind: int
    draw: float
    bad_images: list[str]


class EncoderBatch(TrainingBatch):
    """A micro-batch of N pictures.

    Attributes:
        input_ids: (N, T) int64 captions with begin and end, padded to the longest and on to a multiple of 8, at most
            to `max_tokens`; T is 0 if captions aren't needed.
        kinds: (N,) int64 indices into `mm1.document.KINDS`.
        terms: (N,) int64 number of terms in each picture's loss.
        equal_captions: Share of the captions that occur more than once in the micro-batch.
    """

    input_ids: torch.Tensor
    kinds: torch.Tensor
    terms: torch.Tensor
    equal_captions: float


class PictureDataset(Dataset[PictureSample]):
    """The pictures of a plan.

    Args:
        plan: The plan, with one document per sequence.
        splits: The opened splits, in the order of the plan's sources.
        rows: For each split, the rows of the documents that the plan numbers.
        image_size: Side of an image in pixels.
        recipe: Gives crops and mirroring.
        seed: The seed of all random choices.
    """

    def __init__(
        self,
        plan: Plan,
        splits: Sequence[Split],
        rows: Sequence[np.ndarray],
        image_size: int,
        recipe: EncoderDataRecipe,
        seed: int,
    ) -> None:
        self.plan, self.splits, self.rows = plan, list(splits), list(rows)
        self.image_size, self.recipe, self.seed = image_size, recipe, seed
        self.kinds = [KINDS.index(source["kind"]) for source in plan.info["sources"].values()]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the rows as the files that they are mapped from, not as copies."""
        return {**self.__dict__, "rows": [mapped_file(rows) or rows for rows in self.rows]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.rows = [map_array(rows) if isinstance(rows, Path) else rows for rows in state["rows"]]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> PictureSample:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[PictureSample]:
        """Return several pictures; those in stores are read ahead. torch's `DataLoader` calls this."""
        documents = read_documents(self._place(number, 0) for number in numbers)
        return [self._sample(number, document) for number, document in zip(numbers, documents, strict=True)]

    def _place(self, number: int, turn: int) -> tuple[Split, int]:
        """Return the split and the row of a sequence's picture, or of the one so many places behind it."""
        source = int(self.plan.source[number])
        rows = self.rows[source]
        first = int(self.plan.document[self.plan.pieces(number).start])
        return self.splits[source], int(rows[(first + turn) % len(rows)])

    def _sample(self, number: int, document: Document | SourceError) -> PictureSample:
        source = int(self.plan.source[number])
        split = self.splits[source]
        bad_images: list[str] = []
        # A contrastive batch must stay complete, so the next picture replaces one that can't be read.
        for turn in range(_TRIES):
            random = np.random.default_rng([self.seed, number])
            if turn:
                document = next(read_documents([self._place(number, turn)]))
            if isinstance(document, SourceError):
                bad_images.append(f"{split.name}: {document}")
                continue
            try:
                image = decode_image(document.images[0].read(), self.image_size)
            except ImageError as error:
                bad_images.append(f"{split.name}, document '{document.id}': {error}")
                continue
            pixels = augment(
                image, self.image_size, self.recipe.crop_area, self.recipe.crop_ratio, self.recipe.flip, random
            )
            return PictureSample(pixels, caption_of(document), self.kinds[source], random.random(), bad_images)
        raise UserError(
            f"{split.name}: {_TRIES} pictures in a row can't be read (the last one: {bad_images[-1]}): rebuild or "
            "clean the corpus"
        )


@dataclass(frozen=True)
class PairCollate:
    """Collates samples for a contrastive loss, which has one term per picture.

    Attributes:
        tokenizer: The captions' tokenizer.
        max_tokens: Most tokens of a caption, begin and end included; longer captions are cut.
        patches: Patches per picture; they count as tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    patches: int

    def __call__(self, samples: Sequence[PictureSample]) -> EncoderBatch:
        """Return the micro-batch."""
        captions = [sample.caption for sample in samples]
        # The characters "<eos>" in a caption are plain text, so special tokens in it are split.
        encoded: Any = self.tokenizer(
            captions,
            split_special_tokens=True,
            truncation=True,
            max_length=self.max_tokens,
            padding=True,
            return_tensors="pt",
        )
        terms = torch.ones(len(samples), dtype=torch.int64)
        tokens = int(encoded["attention_mask"].sum()) + self.patches * len(samples)
        ids = encoded["input_ids"]
        length = min(-(-ids.shape[1] // _CAPTION_STEP) * _CAPTION_STEP, self.max_tokens)  # shapes repeat
        ids = F.pad(ids, (0, length - ids.shape[1]), value=self.tokenizer.pad_token_id)
        return _batch(samples, ids, terms, tokens)


@dataclass(frozen=True)
class PatchCollate:
    """Collates samples for AIM, whose loss has one term per patch after a prefix of random length.

    Attributes:
        patches: Patches per picture, K. The prefix's length is uniform from 1 to K - 1 (arXiv 2401.08541 sec. 3.2).
    """

    patches: int

    def __call__(self, samples: Sequence[PictureSample]) -> EncoderBatch:
        """Return the micro-batch; the patches that are not terms form a picture's prefix."""
        terms = torch.tensor([1 + int(sample.draw * (self.patches - 1)) for sample in samples])
        no_captions = torch.zeros(len(samples), 0, dtype=torch.int64)
        return _batch(samples, no_captions, terms, self.patches * len(samples))


def _batch(samples: Sequence[PictureSample], input_ids: torch.Tensor, terms: torch.Tensor, tokens: int) -> EncoderBatch:
    counts = np.unique(np.array([sample.caption for sample in samples]), return_counts=True)[1]
    return EncoderBatch(
        pixel_values=torch.from_numpy(np.stack([sample.pixel_values for sample in samples])),
        input_ids=input_ids,
        kinds=torch.tensor([sample.kind for sample in samples]),
        terms=terms,
        equal_captions=float(counts[counts > 1].sum() / len(samples)),
        count=int(terms.sum()),
        tokens=tokens,
        images=len(samples),
        bad_images=[sentence for sample in samples for sentence in sample.bad_images],
    )
