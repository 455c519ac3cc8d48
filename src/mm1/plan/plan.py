"""The plan: the whole order of training, written before it begins.

    sources (indexes) --blocks of documents: cut, pack--> sequences per source --drawn by weight--> plan

The plan is the paper's fixed snapshot: every model of a study sees the same documents in the same order. Sequence `i`
depends only on the plan, so the state of the data stream is one integer. A plan is made block by block; besides a block
it takes 4 bytes of memory per document of the largest source.

    plan/plan.json       hash, limits, figures
    plan/sequences.npy   per sequence: source, first piece; in the order of training
    plan/pieces.npy      per piece: document, first token, length, images; grouped by sequence
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mm1.document import Kind
from mm1.errors import UserError
from mm1.files import whole_folder, write_json
from mm1.plan.arrays import ArrayWriter, map_array
from mm1.plan.figures import plan_figures, with_present_names
from mm1.plan.mixture import Mixture
from mm1.plan.packing import BLOCK, cut_documents, pack
from mm1.plan.sources import Source, Totals
from mm1.recipe import DataRecipe

RULE = 2
"""Version of the rule by which a plan is made; part of its hash."""

SEQUENCE = np.dtype([("source", "<i4"), ("first_piece", "<i8")])
PIECE = np.dtype([("document", "<i8"), ("first", "<i4"), ("length", "<i4"), ("images", "<i4")])

_SEQUENCES_AT_ONCE = 65_536


class Plan:
    """A plan on disk, memory-mapped.

    Args:
        directory: The directory that `write_plan` wrote.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.info: dict[str, Any] = with_present_names(json.loads((directory / "plan.json").read_text()))
        sequences, pieces = map_array(directory / "sequences.npy"), map_array(directory / "pieces.npy")
        self.source, self.first_piece = sequences["source"], sequences["first_piece"]
        self.document, self.first = pieces["document"], pieces["first"]
        self.length, self.images = pieces["length"], pieces["images"]

    def __reduce__(self) -> tuple[type[Plan], tuple[Path]]:
        """Pickle the plan as a path, not as a copy of its arrays."""
        return Plan, (self.directory,)

    @property
    def hash(self) -> str:
        """The hash over content, tokenizer, weights, limits, seed and rule."""
        return self.info["hash"]

    def __len__(self) -> int:
        return len(self.source)

    def pieces(self, sequence: int) -> range:
        """Return the rows of a sequence's pieces."""
        return range(self._begin(sequence), self._begin(sequence + 1))

    def count_images(self, start: int, stop: int) -> int:
        """Return the number of images in the sequences from `start` to before `stop`."""
        return int(self.images[self._begin(start) : self._begin(stop)].sum())

    def images_of(self, start: int, stop: int) -> np.ndarray:
        """Return the number of images in each sequence from `start` to before `stop`, (stop - start,) int64."""
        before = np.concatenate([[0], np.cumsum(self.images[self._begin(start) : self._begin(stop)], dtype=np.int64)])
        borders = np.append(self.first_piece[start:stop], self._begin(stop)) - self._begin(start)
        return np.diff(before[borders])

    def _begin(self, sequence: int) -> int:
        return int(self.first_piece[sequence]) if sequence < len(self) else len(self.document)


def write_plan(
    directory: Path,
    sources: Sequence[Source],
    recipe: DataRecipe,
    *,
    tokenizer_fingerprint: str,
    tokens_per_image: int,
    batch_size: int,
    steps: int,
    seed: int,
    fixed: str | None = None,
    resolution: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
) -> Plan:
    """Write the plan, complete or not at all; a plan with the same hash is kept.

    Args:
        directory: The plan's directory.
        sources: The sources, in the recipe's order.
        recipe: Gives limits and the mixture's weights.
        tokenizer_fingerprint: See `mm1.plan.index.tokenizer_fingerprint`.
        tokens_per_image: Tokens per image.
        batch_size: Sequences per step.
        steps: Training steps.
        seed: The seed of all permutations.
        fixed: The hash of the plan that training has begun with; another plan is an error.
        resolution: The rule by which the indexes' pictures are cut; None: they are not cut.
        chat_template: Fingerprint of the chat template of the indexes' conversations; None: there are none.

    Raises:
        UserError: If a source is empty, the disk is full, or the plan differs from the `fixed` one.
    """
    for source in sources:
        if not len(source):
            raise UserError(f"{source.name}: the split has no documents that fit: leave it out of the mixture")
    kinds = {kind: mix.weight for kind, mix in recipe.mixture.items() if mix.weight > 0}
    used = [source for source in sources if source.kind in kinds]
    identity = {
        "rule": RULE,
        "tokenizer": tokenizer_fingerprint,
        "content": {source.name: source.content_hash for source in used},
        "kinds": list(kinds.items()),
        "weights": [(source.name, source.kind, source.weight) for source in used],
        "limits": [recipe.sequence_length, [recipe.max_images(kind) for kind in kinds]],
        "tokens_per_image": tokens_per_image,
        "sequences": batch_size * steps,
        "seed": seed,
    }
    if resolution is not None:  # left out if nothing is cut, so that plans from before this rule keep their hash
        identity["resolution"] = dict(resolution)
    if chat_template is not None:
        identity["chat_template"] = chat_template
    name = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()
    file = directory / "plan.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    if fixed not in (None, name):
        raise UserError(_changed(directory, before.get("made_from") if before.get("hash") == fixed else None, identity))
    if before.get("hash") == name:
        return Plan(directory)
    try:
        with whole_folder(directory) as partial:
            totals = _write_arrays(partial, used, kinds, recipe, tokens_per_image, batch_size * steps, seed)
            info = {
                "hash": name,
                "sequences": batch_size * steps,
                "sequence_length": recipe.sequence_length,
                "images_per_sequence": recipe.images_per_sequence,
                "tokens_per_image": tokens_per_image,
                "batch_size": batch_size,
                "steps": steps,
                "seed": seed,
                **plan_figures(used, totals, recipe),
                "made_from": identity,
            }
            write_json(partial / "plan.json", info)
    except OSError as error:
        raise UserError(f"{directory}: the plan can't be written ({error}): free some space") from error
    return Plan(directory)


def _changed(directory: Path, before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """Return the error for a run that has begun with another plan.

    Args:
        directory: The plan's directory.
        before: What the run's plan was made from; None if unknown.
        now: What the plan would be made from now.
    """
    changed = ["a corpus, the tokenizer or the recipe"]
    if before is not None:
        names = [name for name, value in now["content"].items() if before["content"].get(name) != value]
        changed = [f"the corpus {name}" for name in names]
        changed += ["the tokenizer"] if before["tokenizer"] != now["tokenizer"] else []
        changed += ["the rule by which plans are made"] if before["rule"] != now["rule"] else []
    return (
        f"{directory}: the run has begun with a plan that can't be made any more, since "
        f"{' and '.join(changed or ['the recipe'])} changed: restore the old state, or start another run with --to"
    )


def _write_arrays(
    directory: Path,
    sources: Sequence[Source],
    kinds: dict[Kind, float],
    recipe: DataRecipe,
    tokens_per_image: int,
    count: int,
    seed: int,
) -> list[Totals]:
    """Write sequences.npy and pieces.npy; return the amounts taken from each source."""
    mixture = Mixture(kinds, [(source.kind, source.weight) for source in sources], count)
    needed = np.zeros(len(sources), dtype=np.int64)
    for start, stop in _chunks(count):
        needed += np.bincount(mixture(start, stop), minlength=len(sources))
    streams = []
    for number, source in enumerate(sources):
        stream = _Stream(source, recipe, tokens_per_image, (seed, number))
        stream.write(directory / f"source-{number}", int(needed[number]))
        streams.append(stream)
    with (
        ArrayWriter(directory / "sequences.npy", SEQUENCE) as sequences,
        ArrayWriter(directory / "pieces.npy", PIECE) as pieces,
    ):
        for start, stop in _chunks(count):
            order = mixture(start, stop)
            taken = [stream.next(int((order == number).sum())) for number, stream in enumerate(streams)]
            counts = np.empty(len(order), dtype=np.int64)
            for number, (lengths, _) in enumerate(taken):
                counts[order == number] = lengths
            block = np.empty(len(order), dtype=SEQUENCE)
            block["source"], block["first_piece"] = order, pieces.length + np.cumsum(counts) - counts
            sequences.write(block)
            rows, owner = np.empty(int(counts.sum()), dtype=PIECE), np.repeat(order, counts)
            for number, (_, own) in enumerate(taken):
                rows[owner == number] = own
            pieces.write(rows)
    for stream in streams:
        stream.remove()
    return [stream.totals for stream in streams]


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _SEQUENCES_AT_ONCE, count)) for start in range(0, count, _SEQUENCES_AT_ONCE))


@dataclass
class _Stream:
    """The sequences of one source, epoch after epoch, in two files until they are drawn."""

    source: Source
    recipe: DataRecipe
    tokens_per_image: int
    seed: tuple[int, int]
    totals: Totals = field(default_factory=Totals)

    def write(self, directory: Path, needed: int) -> None:
        """Pack the needed number of sequences."""
        self._directory = directory
        self._sequence = self._piece = 0
        directory.mkdir()
        with (
            ArrayWriter(directory / "counts.npy", np.int32) as counts,
            ArrayWriter(directory / "pieces.npy", PIECE) as pieces,
        ):
            blocks = self._blocks()
            while counts.length < needed:
                lengths, rows, target = next(blocks)
                lengths = lengths[: needed - counts.length]
                rows, target = rows[: lengths.sum()], target[: lengths.sum()]
                counts.write(lengths)
                pieces.write(rows)
                self.totals.documents += int((rows["first"] == 0).sum())
                self.totals.tokens += int(rows["length"].sum(dtype=np.int64))
                self.totals.images += int(rows["images"].sum(dtype=np.int64))
                self.totals.target_tokens += int(target.sum(dtype=np.int64))
        self.totals.sequences = needed
        self._counts, self._pieces = map_array(directory / "counts.npy"), map_array(directory / "pieces.npy")

    def next(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the next sequences: (count,) pieces per sequence, and the pieces."""
        counts = self._counts[self._sequence : self._sequence + count]
        pieces = self._pieces[self._piece : self._piece + int(counts.sum())]
        self._sequence, self._piece = self._sequence + count, self._piece + len(pieces)
        return counts, pieces

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._directory)

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield blocks of packed sequences: pieces per sequence, the pieces, target tokens per piece."""
        rows = self.source.documents
        count, epoch = len(self.source), 0
        while True:
            random = np.random.default_rng([*self.seed, epoch])
            order = np.arange(count, dtype=np.uint32 if count < 2**32 else np.uint64)
            random.shuffle(order)  # in place, since this array takes most of the memory
            for documents in np.array_split(order, -(-count // BLOCK)):
                yield self._pack(documents.astype(np.int64) if rows is None else rows[documents], random)
            epoch += 1

    def _pack(self, documents: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        limits = self.recipe.sequence_length, self.recipe.max_images(self.source.kind)
        cut = cut_documents(self.source.index.take(documents), self.tokens_per_image, *limits)
        packed = pack(cut, random.permutation(len(cut)), *limits)
        packed = [packed[i] for i in random.permutation(len(packed))]
        which = np.concatenate(packed)
        rows = np.empty(len(which), dtype=PIECE)
        rows["document"] = documents[cut.document[which]]
        for name in ("first", "length", "images"):
            rows[name] = getattr(cut, name)[which]
        return np.array([len(sequence) for sequence in packed]), rows, cut.target[which]
