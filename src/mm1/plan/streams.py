"""The packed sequences of every source, made in parts over processes; what is made outlives an interruption.

    source --permutation of an epoch--> blocks of documents --cut, pack--> parts on disk

Within an epoch every block goes on with the random numbers of the one before, so the parts of an epoch follow one
another. Epochs and sources are independent: they run beside each other. Small epochs run together, as one chain.

    JOB/source-0/000001-000002.*     third part of the second chain: .counts.npy, .pieces.npy and, written last, .json
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from mm1.data.shards import run_ready
from mm1.files import whole_file, write_json
from mm1.plan.arrays import ArrayWriter, map_array, on_disk
from mm1.plan.lengths import Index
from mm1.plan.packing import BLOCK, cut_documents, pack
from mm1.plan.sources import Source, Totals
from mm1.progress import progress_bar
from mm1.recipe import DataRecipe

PIECE = np.dtype([("document", "<i8"), ("first", "<i4"), ("length", "<i4"), ("images", "<i4")])
PARTS_VERSION = 1
"""Version of the files of parts; another job doesn't go on from them."""

_COUNTS = np.dtype([("pieces", "<i4"), ("target_tokens", "<i4")])  # of a sequence

_PER_PART = 2**20
"""Documents of a part, and of the epochs that run together: some seconds of work."""
_ONE_PROCESS_BELOW = 200_000  # sequences; more processes take seconds to start


class _Position(NamedTuple):
    """Where a chain goes on, and with which random numbers (None: with those of a new epoch)."""

    epoch: int
    block: int
    random: Mapping[str, Any] | None


@dataclass(frozen=True)
class Packing:
    """How a source is packed; travels to other processes without its arrays.

    Attributes:
        folder: Where its parts are made.
        arrays: Files of the index's arrays by name (see `Index`), and of `documents` if not all are drawn from.
        count: Documents of an epoch.
        limits: Tokens and images of a sequence.
        tokens_per_image: Tokens per image.
        seed: The seeds of the plan and of the source.
    """

    folder: Path
    arrays: dict[str, Path]
    count: int
    limits: tuple[int, int]
    tokens_per_image: int
    seed: tuple[int, int]

    @classmethod
    def of(
        cls, source: Source, folder: Path, recipe: DataRecipe, tokens_per_image: int, seed: tuple[int, int]
    ) -> Packing:
        """Return the packing of a source; arrays that are in memory are written to the folder."""
        folder.mkdir(exist_ok=True)
        index = source.index
        arrays = {"parts": index.parts, "offsets": index.offsets, "target": index.target}
        for name, values in (("sub_images", index.sub_images), ("documents", source.documents)):
            if values is not None:
                arrays[name] = values
        files = {name: on_disk(values, folder / f"{name}.npy") for name, values in arrays.items()}
        limits = recipe.sequence_length, recipe.max_images(source.kind)
        return cls(folder, files, len(source), limits, tokens_per_image, seed)

    @property
    def epochs_together(self) -> int:
        """Epochs of a chain."""
        return max(1, _PER_PART // self.count)

    @property
    def blocks(self) -> int:
        """Blocks of an epoch."""
        return -(-self.count // BLOCK)

    def block(self, number: int) -> slice:
        """Return the places of a block in an epoch's permutation; blocks differ by one document at most."""
        each, longer = divmod(self.count, self.blocks)
        start = number * each + min(number, longer)
        return slice(start, start + each + (number < longer))

    def permutation(self, epoch: int) -> tuple[np.ndarray, np.random.Generator]:
        """Return an epoch's order and the generator of all that follows.

        The order takes 4 bytes a document. One that several parts need is kept in a file, and made by one process at a
        time.
        """
        random = np.random.default_rng([*self.seed, epoch])
        if self.count <= _PER_PART:
            return self._shuffled(random), random
        file = self._order(epoch)
        with FileLock(self.folder.with_name("permutation.lock")):
            if not file.is_file():
                order = self._shuffled(random)
                write_json(file.with_suffix(".json"), random.bit_generator.state)
                with whole_file(file) as new, new.open("wb") as stream:
                    np.save(stream, order)
        random.bit_generator.state = json.loads(file.with_suffix(".json").read_text())
        return map_array(file), random

    def forget_permutation(self, epoch: int) -> None:
        """Remove the file of an epoch's order if there is one."""
        self._order(epoch).unlink(missing_ok=True)

    def _order(self, epoch: int) -> Path:
        return self.folder / f"permutation.{epoch:06d}.npy"

    def _shuffled(self, random: np.random.Generator) -> np.ndarray:
        order = np.arange(self.count, dtype=np.uint32 if self.count < 2**32 else np.uint64)
        random.shuffle(order)  # in place, since this array takes most of the memory
        return order

    def part_file(self, chain: int, part: int, suffix: str) -> Path:
        """Return a file of a part."""
        return self.folder / f"{chain:06d}-{part:06d}{suffix}"

    def read_part(self, chain: int, part: int) -> dict[str, Any] | None:
        """Return what a part has counted, and where it ends; None if it isn't done."""
        try:
            return json.loads(self.part_file(chain, part, ".json").read_text())
        except (OSError, ValueError):
            return None


def pack_part(packing: Packing, chain: int, part: int, limit: int) -> None:
    """Pack the documents of a part, which goes on from the one before.

    Args:
        packing: How.
        chain: The number of the chain.
        part: The number of the part in it.
        limit: Sequences after which no further block is packed.
    """
    before = packing.read_part(chain, part - 1) if part else None
    at = _Position(*before["end"]) if before else _Position(chain * packing.epochs_together, 0, None)
    arrays = {name: map_array(file) for name, file in packing.arrays.items()}
    rows = arrays.get("documents")
    index = Index(arrays["parts"], arrays["offsets"], arrays["target"], sub_images=arrays.get("sub_images"))
    sequences = documents = 0
    counts_file, pieces_file = (packing.part_file(chain, part, f".{name}.npy") for name in ("counts", "pieces"))
    with (
        whole_file(counts_file) as counts_partial,
        whole_file(pieces_file) as pieces_partial,
        ArrayWriter(counts_partial, _COUNTS) as counts,
        ArrayWriter(pieces_partial, PIECE) as pieces,
    ):
        while at.epoch < (chain + 1) * packing.epochs_together and sequences < limit and documents < _PER_PART:
            order, random = packing.permutation(at.epoch)
            if at.random is not None:
                random.bit_generator.state = at.random
            while at.block < packing.blocks and sequences < limit and documents < _PER_PART:
                places = order[packing.block(at.block)]
                made = _pack(packing, index, places.astype(np.int64) if rows is None else rows[places], random)
                counts.write(made[0])
                pieces.write(made[1])
                sequences, documents = sequences + len(made[0]), documents + len(places)
                at = _Position(at.epoch, at.block + 1, random.bit_generator.state)
            if at.block == packing.blocks:
                at = _Position(at.epoch + 1, 0, None)
    write_json(packing.part_file(chain, part, ".json"), {"sequences": sequences, "documents": documents, "end": at})
    if at.block == 0:
        packing.forget_permutation(at.epoch - 1)


def _pack(
    packing: Packing, index: Index, documents: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return packed sequences: pieces and target tokens of each, and the pieces."""
    cut = cut_documents(index.take(documents), packing.tokens_per_image, *packing.limits)
    packed = pack(cut, random.permutation(len(cut)), *packing.limits)
    packed = [packed[i] for i in random.permutation(len(packed))]
    which = np.concatenate(packed)
    rows = np.empty(len(which), dtype=PIECE)
    rows["document"] = documents[cut.document[which]]
    for name in ("first", "length", "images"):
        rows[name] = getattr(cut, name)[which]
    counts = np.empty(len(packed), dtype=_COUNTS)
    counts["pieces"] = [len(sequence) for sequence in packed]
    starts = np.cumsum(counts["pieces"], dtype=np.int64) - counts["pieces"]
    counts["target_tokens"] = np.add.reduceat(cut.target[which], starts, dtype=np.int64)
    return counts, rows


class Stream:
    """The sequences of one source, epoch after epoch: which of them are made, and which are to be made next.

    Args:
        packing: How they are packed.
        needed: How many sequences the plan takes.
    """

    def __init__(self, packing: Packing, needed: int) -> None:
        self.packing, self.needed = packing, needed
        self._chains: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self._busy: set[int] = set()
        for first in packing.folder.glob(f"*-{0:06d}.json"):  # made before an interruption
            self._read_parts(int(first.name.partition("-")[0]))

    @property
    def left(self) -> int:
        """How many of the needed sequences are not made yet."""
        return max(0, self.needed - sum(part["sequences"] for parts in self._chains.values() for part in parts))

    def next_part(self) -> Part | None:
        """Return the next part to make, if one can be made now; `finish` takes it when it is done.

        How many sequences an epoch has is known when it is packed. Beside an epoch that isn't complete another one is
        begun if, as far as one can tell from what is packed, it will be needed.
        """
        wanted, chain = float(self.needed), 0
        while wanted > 0:
            sequences = sum(part["sequences"] for part in self._chains[chain])
            complete = self._is_complete(chain)
            if not complete and chain not in self._busy and sequences < wanted:
                self._busy.add(chain)
                return Part(self.packing, chain, len(self._chains[chain]), math.ceil(wanted) - sequences)
            if not complete:
                sequences = max(sequences, self._expected())
            wanted, chain = wanted - sequences, chain + 1
        return None

    def finish(self, chain: int) -> None:
        """Take note that a part of a chain is done."""
        self._busy.discard(chain)
        self._read_parts(chain)

    def part_files(self) -> Iterator[tuple[Path, Path]]:
        """Yield the files of sequences and of pieces of all parts, in order."""
        for chain in sorted(self._chains):
            for number in range(len(self._chains[chain])):
                yield (
                    self.packing.part_file(chain, number, ".counts.npy"),
                    self.packing.part_file(chain, number, ".pieces.npy"),
                )

    def _read_parts(self, chain: int) -> None:
        parts = self._chains[chain]
        while found := self.packing.read_part(chain, len(parts)):
            parts.append(found)

    def _is_complete(self, chain: int) -> bool:
        parts, epochs = self._chains[chain], self.packing.epochs_together
        return bool(parts) and parts[-1]["end"][0] == (chain + 1) * epochs

    def _expected(self) -> float:
        """Return how many sequences a chain will probably have; as many as are needed while nothing is known."""
        done = [part for parts in self._chains.values() for part in parts]
        if not done:
            return self.needed
        of_document = sum(part["sequences"] for part in done) / sum(part["documents"] for part in done)
        return of_document * self.packing.count * self.packing.epochs_together


@dataclass(frozen=True)
class Part:
    """A part to make; another process can call it."""

    packing: Packing
    chain: int
    number: int
    limit: int

    def __call__(self) -> None:
        """Make it."""
        pack_part(self.packing, self.chain, self.number, self.limit)


def make_parts(streams: Sequence[Stream], job: Path, workers: int | None, engine: str) -> None:
    """Make all parts that the sequences of a plan need, of several sources and epochs at a time.

    Args:
        streams: The sequences of all sources.
        job: The job's folder.
        workers: Processes; None: one per core, or one if there is little to do.
        engine: One of `mm1.data.engines.ENGINES`.

    Raises:
        UserError: If a process dies, or the disk is full. What is made stays.
    """
    total = sum(stream.needed for stream in streams)
    of_packing = {stream.packing.folder: stream for stream in streams}

    def next_part() -> Part | None:
        # Those with the most to do first, so that all end together.
        parts = (stream.next_part() for stream in sorted(streams, key=lambda stream: -stream.left))
        return next((part for part in parts if part is not None), None)

    with progress_bar() as bar:
        task = bar.add_task("pack sequences", total=total, completed=total - sum(s.left for s in streams), note="")

        def done(part: Part) -> None:
            of_packing[part.packing.folder].finish(part.chain)
            bar.update(task, completed=total - sum(stream.left for stream in streams))

        if workers is None and engine == "processes" and total < _ONE_PROCESS_BELOW:
            workers = 1
        run_ready(next_part, job, workers, "pack sequences", engine, done)


class Drawn:
    """The sequences of a source as a plan draws them, in order.

    Args:
        stream: The sequences, all of which are made.

    Attributes:
        totals: What has been drawn.
    """

    def __init__(self, stream: Stream) -> None:
        self.totals = Totals()
        self._files = stream.part_files()
        self._counts, self._pieces = np.zeros(0, _COUNTS), np.zeros(0, PIECE)

    def next(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the next sequences: (count,) pieces per sequence, and the pieces."""
        drawn_counts, drawn_pieces = [self._counts[:0]], [self._pieces[:0]]
        while count:
            if not len(self._counts):
                self._counts, self._pieces = map(map_array, next(self._files))
            counts = self._counts[:count]
            pieces = self._pieces[: counts["pieces"].sum(dtype=np.int64)]
            self._counts, self._pieces = self._counts[len(counts) :], self._pieces[len(pieces) :]
            drawn_counts.append(counts)
            drawn_pieces.append(pieces)
            count -= len(counts)
        counts, pieces = np.concatenate(drawn_counts), np.concatenate(drawn_pieces)
        self.totals.sequences += len(counts)
        self.totals.documents += int((pieces["first"] == 0).sum())
        self.totals.tokens += int(pieces["length"].sum(dtype=np.int64))
        self.totals.images += int(pieces["images"].sum(dtype=np.int64))
        self.totals.target_tokens += int(counts["target_tokens"].sum(dtype=np.int64))
        return counts["pieces"], pieces
