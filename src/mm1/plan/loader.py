"""The loader: sequences of a plan as tensors, through torch's `DataLoader`.

    plan[i] --read--> documents --encode--> pieces --join--> PackedSequence --join--> Batch

Sequence `i` depends only on the plan, so ranks, workers and restarts don't change the batches. This module computes the
positions of image tokens and target tokens, which batches contain as index tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mm1.data.corpus import Split
from mm1.data.read_ahead import read_documents
from mm1.data.sources import SourceError
from mm1.document import KINDS, Document, Text
from mm1.errors import UserError
from mm1.model.borders import Borders
from mm1.model.loss import NO_TARGET
from mm1.plan.index import IMAGE, has_conversations, keeps_from
from mm1.plan.lengths import LONG, Index
from mm1.plan.micro_batches import MicroBatches
from mm1.plan.picture_sizes import processor_index
from mm1.plan.plan import Plan
from mm1.plan.shapes import Shapes
from mm1.processing.encode import EncodedDocument, tokenize_texts
from mm1.processing.images import ImageError
from mm1.processing.processor import MM1Processor

_BORDERS = 64
"""Borders of documents are padded to a multiple of this many, so that few shapes occur."""


@dataclass
class PackedSequence:
    """One sequence of L tokens with N images (each sub-image counts) of T tokens and M target tokens.

    Attributes:
        input_ids: (L,) int64 token ids, padded with the pad token.
        position_ids: (L,) int64 positions; they begin at 0 in every document, or only once with `document_mask: false`.
            All padding has position 0, so every padding token attends only to itself.
        pixel_values: (N, 3, H, W) uint8 pixels.
        image_positions: (N * T,) int64 positions of image tokens in the sequence.
        target_positions: (M,) int64 positions whose output predicts a target token.
        target_ids: (M,) int64 target tokens.
        kind: Index into `mm1.document.KINDS`.
        tokens: Number of tokens that are not padding.
        bad_images: One sentence for each piece that is masked because a picture can't be read.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    pixel_values: np.ndarray
    image_positions: np.ndarray
    target_positions: np.ndarray
    target_ids: np.ndarray
    kind: int
    tokens: int
    bad_images: list[str] = field(default_factory=list)


class TrainingBatch(TypedDict):
    """The values of a micro-batch that the training loop reads, for every type of model.

    Attributes:
        pixel_values: (N, 3, H, W) uint8 pixels.
        count: Number of terms in the loss (target tokens, or pictures), by which a step's loss is divided.
        tokens: Number of tokens that are not padding.
        images: Number of images that are not padding.
        bad_images: One sentence for each document that is left out because a picture can't be read.
    """

    pixel_values: torch.Tensor
    count: int
    tokens: int
    images: int
    bad_images: list[str]


class Batch(TrainingBatch):
    """A micro-batch of B sequences: `PackedSequence`'s arrays as tensors, positions counted in (B * L).

    It may be padded (see `mm1.plan.shapes`): with black images, whose tokens have the position B * L, which is nowhere;
    and with targets that are `NO_TARGET`, at position 0.

    Attributes:
        document_borders: (documents + 1,) int32, where the documents begin in the flattened rows and the last ends;
            padded to a multiple of 64 with the end.
        longest_document: Tokens of the longest document.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    image_positions: torch.Tensor
    target_positions: torch.Tensor
    target_ids: torch.Tensor
    target_kinds: torch.Tensor
    document_borders: torch.Tensor
    longest_document: int


class PlanDataset(Dataset[PackedSequence]):
    """The sequences of a plan.

    Args:
        plan: The plan, which lists the pieces of each sequence.
        splits: The opened splits, in the order of the plan's sources.
        processor: Turns documents into tokens and pictures into pixels.
        document_mask: Whether positions begin at 0 in every document, which keeps attention inside it.
        shapes: The sizes that micro-batches are padded to (`mm1.plan.micro_batches.fixed_shapes`); None: no padding.
    """

    def __init__(
        self,
        plan: Plan,
        splits: Sequence[Split],
        processor: MM1Processor,
        document_mask: bool = True,
        shapes: Shapes | None = None,
    ) -> None:
        self.plan, self.shapes = plan, shapes
        self.splits = list(splits)
        self.processor = processor
        self.document_mask = document_mask
        self.kinds = [KINDS.index(source["kind"]) for source in plan.info["sources"].values()]
        self._indexes: dict[int, Index] = {}

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> PackedSequence:
        return self._sequence(number, self._documents([number]), self._room([number]).numpy())

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        """Return the micro-batch of several sequences; torch's `DataLoader` calls this.

        Pictures are decoded directly into the tensor that is passed between processes, without a copy.
        """
        shapes = self.shapes if self.shapes and self.shapes.sequences == len(numbers) else None
        room = self._room(numbers, shapes)
        sequences, used = [], 0
        documents = self._documents(numbers)
        for number in numbers:
            sequences.append(self._sequence(number, documents, room[used:].numpy()))
            used += len(sequences[-1].pixel_values)
        batch = _join(sequences, room[:used])
        return batch if shapes is None else self._padded(batch, room, shapes)

    def encode(self, source: int, row: int, document: Document, stretch: range) -> EncodedDocument:
        """Return a document as tokens, of which a stretch is needed.

        The tokens of long texts, or of all, come from the index. Where that has not all, of a document with much text
        only texts in the stretch are tokenized; the tokens of other texts are zeros.

        Args:
            source: The number of the document's source.
            row: The document's row in the source's split.
            document: The document.
            stretch: The range of needed tokens.
        """
        if has_conversations(self.splits[source]):
            return self.processor.encode(document)
        index = self._index(source)
        if index.long_texts is not None and keeps_from(self.splits[source]) == 0:
            known = index.long_texts.between(int(index.offsets[row]), int(index.offsets[row + 1]))
            as_counted = len(known) == sum(isinstance(part, Text) for part in document.parts)
            return self.processor.encode(document, text_ids=known if as_counted else None)
        if len(document.text) < LONG:
            return self.processor.encode(document)
        first_part = int(index.offsets[row])
        end_part = int(index.offsets[row + 1])
        counts = index.parts[first_part:end_part]
        images = index.images_between(first_part, end_part) * self.processor.tokens_per_image
        ends = 1 + np.cumsum(np.where(counts == IMAGE, images, counts), dtype=np.int64)
        starts = np.concatenate([[1], ends[:-1]])
        text_ids: list[Sequence[int] | np.ndarray] = []
        for number, part in enumerate(document.parts):
            if isinstance(part, Text):
                if starts[number] >= stretch.stop or ends[number] <= stretch.start:
                    text_ids.append(np.zeros(counts[number], np.int64))
                elif len(part.text) >= LONG and index.long_texts is not None:
                    text_ids.append(index.long_texts[first_part + number])
                else:
                    text_ids += tokenize_texts([part.text], self.processor.tokenizer)
        return self.processor.encode(document, text_ids=text_ids)

    def _index(self, source: int) -> Index:
        """Return a source's index, which is opened when this process first needs it."""
        if source not in self._indexes:
            self._indexes[source] = processor_index(self.splits[source], self.processor)
        return self._indexes[source]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the dataset without the indexes, which would be copied to other processes."""
        return {**self.__dict__, "_indexes": {}}

    def _padded(self, batch: Batch, room: torch.Tensor, shapes: Shapes) -> Batch:
        """Return a batch with the images of the whole room, black after its own, and more targets, which don't count.

        An image that can't be read leaves its place to the padding, so the shape is always that of the plan.
        """
        room[batch["images"] :] = 0
        batch["pixel_values"] = room
        image_tokens = len(room) * self.processor.tokens_per_image - len(batch["image_positions"])
        targets = shapes.padded_targets(batch["count"]) - batch["count"]
        nowhere = batch["input_ids"].numel()
        batch["image_positions"] = F.pad(batch["image_positions"], (0, image_tokens), value=nowhere)
        batch["target_positions"] = F.pad(batch["target_positions"], (0, targets))
        batch["target_ids"] = F.pad(batch["target_ids"], (0, targets), value=NO_TARGET)
        batch["target_kinds"] = F.pad(batch["target_kinds"], (0, targets))
        return batch

    def _room(self, numbers: Sequence[int], shapes: Shapes | None = None) -> torch.Tensor:
        """Return an empty tensor (N, 3, H, W) uint8 for the images of several sequences, with room for padding."""
        side = self.processor.image_size
        images = sum(self.plan.count_images(number, number + 1) for number in numbers)
        shape = (images if shapes is None else shapes.padded_images(images), 3, side, side)
        if get_worker_info() is None:
            return torch.empty(shape, dtype=torch.uint8)
        # Memory that this worker shares with the training process, as in torch's `default_collate`.
        storage = torch.UntypedStorage._new_shared(math.prod(shape))
        # torch takes a size without strides, and declares no overload for it.
        return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # type: ignore[call-overload]

    def _documents(self, numbers: Sequence[int]) -> Iterator[Document | SourceError]:
        """Yield the document of each piece of several sequences; those in stores are read ahead."""
        return read_documents(
            (self.splits[int(self.plan.source[number])], int(self.plan.document[row]))
            for number in numbers
            for row in self.plan.pieces(number)
        )

    def _sequence(self, number: int, documents: Iterator[Document | SourceError], room: np.ndarray) -> PackedSequence:
        """Return a sequence of documents, as many as it has pieces, whose images are at the beginning of `room`."""
        plan, size = self.plan, self.plan.info["sequence_length"]
        source = int(plan.source[number])
        input_ids = np.full(size, self.processor.tokenizer.pad_token_id, dtype=np.int64)
        position_ids = np.zeros(size, dtype=np.int64)
        target = np.zeros(size, dtype=bool)
        image_starts: list[np.ndarray] = []
        image_lengths: list[np.ndarray] = []
        bad_images = []
        end = pictures = 0
        for row in plan.pieces(number):
            first, length = int(plan.first[row]), int(plan.length[row])
            start, end = end, end + length
            position_ids[start:end] = np.arange(length)
            document = next(documents)
            if isinstance(document, SourceError):  # its picture's file is gone: like a picture that can't be read
                if KINDS[self.kinds[source]] == "text":
                    raise document
                bad_images.append(f"{self.splits[source].name}: {document}")
                continue
            encoded = self.encode(source, int(plan.document[row]), document, range(first, first + length))
            inside = (encoded.image_starts >= first) & (encoded.image_starts < first + length)
            planned = int(plan.images[row]) * self.processor.tokens_per_image
            if first + length > len(encoded.input_ids) or encoded.image_lengths[inside].sum() != planned:
                raise UserError(
                    f"{self.splits[source].name}, document '{document.id}': it has {len(encoded.input_ids)} tokens and "
                    f"doesn't match the plan ({plan.images[row]} images in tokens {first} to {first + length}), since "
                    f"the corpus or the tokenizer was changed in place: remove {plan.directory} and the corpus's index"
                )
            images = [encoded.images[i] for i in np.flatnonzero(inside)]
            try:
                pixels = self.processor.pixel_values(images)
            except ImageError as error:
                # The piece becomes padding of the same length, so order and shapes don't change.
                bad_images.append(f"{self.splits[source].name}, document '{document.id}': {error}")
                continue
            room[pictures : pictures + len(pixels)] = pixels
            pictures += len(pixels)
            input_ids[start:end] = encoded.input_ids[first : first + length]
            target[start:end] = encoded.target[first : first + length]
            target[start] = False  # no token before it could predict it
            image_starts.append(encoded.image_starts[inside] - first + start)
            image_lengths.append(encoded.image_lengths[inside])
        if not self.document_mask:
            position_ids[:end] = np.arange(end)
        targets = np.flatnonzero(target)
        return PackedSequence(
            input_ids,
            position_ids,
            room[:pictures],
            _stretches(image_starts, image_lengths),
            targets - 1,
            input_ids[targets],
            self.kinds[source],
            end,
            bad_images,
        )


def _stretches(starts: list[np.ndarray], lengths: list[np.ndarray]) -> np.ndarray:
    """Return the positions of all tokens in stretches that begin at `starts`, in order."""
    first, count = (np.concatenate([np.zeros(0, np.int64), *arrays]) for arrays in (starts, lengths))
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(count.sum())


def _join(sequences: Sequence[PackedSequence], pixel_values: torch.Tensor) -> Batch:
    """Join sequences and their images into a micro-batch."""
    size = len(sequences[0].input_ids)

    def joined(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(s, name) + i * size for i, s in enumerate(sequences)]))

    position_ids = torch.from_numpy(np.stack([s.position_ids for s in sequences]))
    borders = Borders.of(position_ids)
    return Batch(
        input_ids=torch.from_numpy(np.stack([s.input_ids for s in sequences])),
        position_ids=position_ids,
        document_borders=borders.padded(_BORDERS).cu_seq_lens,
        longest_document=borders.longest,
        pixel_values=pixel_values,
        image_positions=joined("image_positions"),
        target_positions=joined("target_positions"),
        target_ids=torch.from_numpy(np.concatenate([s.target_ids for s in sequences])),
        target_kinds=torch.from_numpy(np.repeat([s.kind for s in sequences], [len(s.target_ids) for s in sequences])),
        count=sum(len(s.target_ids) for s in sequences),
        tokens=sum(s.tokens for s in sequences),
        images=len(pixel_values),
        bad_images=[sentence for s in sequences for sentence in s.bad_images],
    )


def _unchanged(batch: Any) -> Any:
    return batch


class Planned(Protocol):
    """A map-style dataset over a plan: item `i` depends only on the plan's sequence `i`."""

    plan: Plan

    def __getitem__(self, number: int, /) -> Any:
        """Return the item of the plan's sequence with that number."""
        ...


def build_loader(
    dataset: Planned,
    first_step: int,
    micro_batch_size: int,
    *,
    collate: Callable[[Any], TrainingBatch] = _unchanged,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    pinned: bool = False,
) -> DataLoader[Any]:
    """Return the micro-batches of one rank, starting at a step.

    Iterating over the loader yields the results of `collate`; by default they are `Batch`es.

    Args:
        dataset: The plan's sequences.
        first_step: The step to begin with, which is the whole state of the data stream.
        micro_batch_size: Sequences per forward pass on one rank.
        collate: Joins the dataset's items into a micro-batch; default: the dataset does (`__getitems__`).
        workers: Processes that prepare batches.
        rank: This process's rank (see `mm1.plan.micro_batches.step_shares`).
        ranks: The number of processes that share a step.
        pinned: Whether tensors are in pinned memory, from which a GPU copies beside its computation.
    """
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # map-style: DataLoader asks for no more than `__getitem__`
        batch_sampler=MicroBatches(dataset.plan, first_step, micro_batch_size, rank, ranks),
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pinned,
    )
