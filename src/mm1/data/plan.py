"""The plan: the whole order of training, written down before it begins.

    sources (indexes) --cut--> pieces --pack--> sequences per source --draw by weight--> plan

The plan is the paper's fixed snapshot: every model of a study sees the same examples in the same order.
Sequence `i` is a pure function of the plan, so the state of the data stream is one integer.

    plan/plan.json         hash, limits, and the table that a person decides by
    plan/sequences.arrow   per sequence: source, first piece; in the order of training
    plan/pieces.arrow      per piece: document, first token, length, pictures; grouped by sequence
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm1.data.index import Index
from mm1.data.packing import Pieces, cut_documents, pack
from mm1.document import Kind
from mm1.errors import UserError
from mm1.recipe import DataRecipe

RULE = 1
"""Version of the rule by which a plan is made; part of its hash."""


@dataclass(frozen=True)
class Source:
    """A split as the plan sees it.

    Attributes:
        name: `corpus/split` as the recipe names it.
        kind: The kind it is drawn as.
        weight: Share among the sources of that kind.
        content_hash: Of the documents.
        index: Part lengths.
    """

    name: str
    kind: Kind
    weight: float
    content_hash: str
    index: Index


def alternate(weights: Sequence[float], count: int) -> np.ndarray:
    """Spread choices evenly: after any number of choices each has had its share, to less than one.

    This is the chairman assignment problem and Tijdeman's rule for it ("The chairman assignment problem",
    Discrete Mathematics 32, 1980): the deviation never exceeds 1 - 1/(2k - 2) for k choices.

    Args:
        weights: Non-negative, with a positive sum.
        count: How many choices to make.

    Returns:
        (count,) int64 indices into `weights`.
    """
    fractions = [Fraction(w).limit_denominator(10_000) for w in weights]
    total = sum(fractions)
    shares = [f / total for f in fractions]
    period = math.lcm(*(share.denominator for share in shares))
    once = _alternate([float(share) for share in shares], min(period, count))
    return np.resize(once, count)


def _alternate(shares: list[float], count: int) -> np.ndarray:
    chosen = np.empty(count, dtype=np.int64)
    if sum(share > 0 for share in shares) == 1:
        chosen.fill(max(range(len(shares)), key=shares.__getitem__))
        return chosen
    slack = 1 / (2 * sum(share > 0 for share in shares) - 2)
    had = [0] * len(shares)
    for step in range(count):
        due = [
            ((1 - slack - ((step + 1) * share - n)) / share, number)
            for number, (share, n) in enumerate(zip(shares, had, strict=True))
            if share > 0 and (step + 1) * share - n >= slack - 1e-9
        ]
        _, number = min(due)
        had[number] += 1
        chosen[step] = number
    return chosen


class Plan:
    """A plan on disk, memory-mapped.

    Args:
        directory: Where `write_plan` put it.
    """

    def __init__(self, directory: Path) -> None:
        self.info: dict[str, Any] = json.loads((directory / "plan.json").read_text())
        sequences = _open(directory / "sequences.arrow")
        pieces = _open(directory / "pieces.arrow")
        self.source = sequences["source"].to_numpy()
        self.first_piece = sequences["first_piece"].to_numpy()
        self.document = pieces["document"].to_numpy()
        self.first = pieces["first"].to_numpy()
        self.length = pieces["length"].to_numpy()
        self.images = pieces["images"].to_numpy()

    @property
    def hash(self) -> str:
        """Identifies content, tokenizer, weights, limits, seed and rule."""
        return self.info["hash"]

    def __len__(self) -> int:
        return len(self.source)

    def pieces(self, sequence: int) -> range:
        """Return the rows of a sequence's pieces."""
        stop = self.first_piece[sequence + 1] if sequence + 1 < len(self) else len(self.document)
        return range(int(self.first_piece[sequence]), int(stop))


def plan_hash(
    sources: Sequence[Source],
    kind_weights: dict[Kind, float],
    recipe: DataRecipe,
    tokenizer_fingerprint: str,
    tokens_per_image: int,
    sequences: int,
    seed: int,
) -> str:
    """Return the hash over everything that decides the plan."""
    content = {
        "rule": RULE,
        "sources": [(s.name, s.kind, s.weight, s.content_hash) for s in sources],
        "kinds": sorted(kind_weights.items()),
        "limits": [recipe.sequence_length, recipe.images_per_sequence],
        "tokenizer": tokenizer_fingerprint,
        "tokens_per_image": tokens_per_image,
        "sequences": sequences,
        "seed": seed,
    }
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


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
) -> Plan:
    """Write the plan, complete or not at all; a plan with the same hash is kept.

    Args:
        directory: Where it is to be.
        sources: The splits, in the recipe's order.
        recipe: Limits and the mixture's weights.
        tokenizer_fingerprint: See `mm1.data.index.tokenizer_fingerprint`.
        tokens_per_image: Tokens a picture takes.
        batch_size: Sequences per step.
        steps: Training steps.
        seed: Of all permutations.

    Raises:
        UserError: If a source is empty, or the disk is full.
    """
    for source in sources:
        if not len(source.index):
            raise UserError(f"{source.name}: the split has no documents: leave it out of the mixture")
    total = batch_size * steps
    kinds = {kind: mix.weight for kind, mix in recipe.mixture.items() if mix.weight > 0}
    used = [source for source in sources if source.kind in kinds]
    identity = plan_hash(used, kinds, recipe, tokenizer_fingerprint, tokens_per_image, total, seed)
    if (directory / "plan.json").is_file() and Plan(directory).hash == identity:
        return Plan(directory)

    order = _draw(used, kinds, total)
    streams = [
        _Stream(source, recipe, tokens_per_image, int((order == number).sum()), seed + number)
        for number, source in enumerate(used)
    ]
    first_piece, pieces = _interleave(order, streams)
    info = {
        "hash": identity,
        "sequences": total,
        "sequence_length": recipe.sequence_length,
        "images_per_sequence": recipe.images_per_sequence,
        "tokens_per_image": tokens_per_image,
        "batch_size": batch_size,
        "steps": steps,
        "seed": seed,
        **_table(order, streams, kinds, recipe),
    }
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _save(partial / "sequences.arrow", {"source": order.astype(np.int32), "first_piece": first_piece})
        _save(partial / "pieces.arrow", vars(pieces))
        (partial / "plan.json").write_text(json.dumps(info, indent=2) + "\n")
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    except OSError as error:
        raise UserError(f"{directory}: the plan could not be written ({error}): free some space") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Plan(directory)


def _draw(sources: Sequence[Source], kinds: dict[Kind, float], total: int) -> np.ndarray:
    """Return the source of every sequence: kinds by their weights, then sources within each kind."""
    names = list(kinds)
    kind_order = alternate([kinds[name] for name in names], total)
    order = np.empty(total, dtype=np.int64)
    for number, name in enumerate(names):
        places = np.flatnonzero(kind_order == number)
        members = [i for i, source in enumerate(sources) if source.kind == name]
        order[places] = np.array(members)[alternate([sources[i].weight for i in members], len(places))]
    return order


class _Stream:
    """The sequences of one source, epoch after epoch, as many as are wanted."""

    def __init__(
        self, source: Source, recipe: DataRecipe, tokens_per_image: int, wanted: int, seed: int
    ) -> None:
        self.source = source
        limits = (recipe.sequence_length, recipe.images_per_sequence)
        self.pieces = cut_documents(source.index, tokens_per_image, *limits)
        self.sequences: list[np.ndarray] = []
        self.per_epoch = 0
        epoch = 0
        while len(self.sequences) < wanted:
            random = np.random.default_rng([seed, epoch])
            packed = pack(self.pieces, random.permutation(len(self.pieces)), *limits)
            self.per_epoch = len(packed)
            self.sequences += [packed[i] for i in random.permutation(len(packed))]
            epoch += 1
        del self.sequences[wanted:]

    @property
    def epochs(self) -> float:
        """How often the source is gone through."""
        return len(self.sequences) / self.per_epoch if self.per_epoch else 0.0


def _interleave(order: np.ndarray, streams: Sequence[_Stream]) -> tuple[np.ndarray, Pieces]:
    """Return where each sequence's pieces begin, and all pieces in the order of training."""
    rows: list[np.ndarray] = [np.empty(0, np.int64)] * len(order)
    for number, stream in enumerate(streams):
        for place, sequence in zip(np.flatnonzero(order == number), stream.sequences, strict=True):
            rows[place] = sequence
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    first_piece = np.concatenate([[0], np.cumsum(counts)[:-1]])
    which = np.concatenate(rows)
    owner = np.repeat(order, counts)
    columns = {}
    for name in ("document", "first", "length", "images"):
        values = np.empty(len(which), dtype=getattr(streams[0].pieces, name).dtype)
        for number, stream in enumerate(streams):
            mine = owner == number
            values[mine] = getattr(stream.pieces, name)[which[mine]]
        columns[name] = values
    return first_piece, Pieces(**columns)


def _table(
    order: np.ndarray, streams: Sequence[_Stream], kinds: dict[Kind, float], recipe: DataRecipe
) -> dict[str, Any]:
    """Return the figures per kind and source that go into plan.json."""
    by_source: dict[str, dict[str, Any]] = {}
    for stream in streams:
        which = np.concatenate([*stream.sequences, np.empty(0, np.int64)]).astype(np.int64)
        by_source[stream.source.name] = {
            "kind": stream.source.kind,
            "sequences": len(stream.sequences),
            "documents": int((stream.pieces.first[which] == 0).sum()),
            "tokens": int(stream.pieces.length[which].sum()),
            "images": int(stream.pieces.images[which].sum()),
            "epochs": round(stream.epochs, 3),
            "fill": _fill(stream, recipe),
        }
    total_weight = sum(kinds.values())
    by_kind: dict[str, dict[str, Any]] = {}
    for kind, weight in kinds.items():
        mine = [entry for entry in by_source.values() if entry["kind"] == kind]
        sums = {
            key: sum(entry[key] for entry in mine) for key in ("sequences", "documents", "tokens", "images")
        }
        by_kind[kind] = {
            "wanted": weight / total_weight,
            "obtained": sums["sequences"] / len(order),
            **sums,
            "fill": sums["tokens"] / max(1, sums["sequences"] * recipe.sequence_length),
        }
    tokens = sum(entry["tokens"] for entry in by_source.values())
    images = sum(entry["images"] for entry in by_source.values())
    binding = sum(entry["fill"]["binding"] * entry["sequences"] for entry in by_source.values())
    return {
        "tokens": tokens,
        "images": images,
        "fill": {
            "tokens": tokens / (len(order) * recipe.sequence_length),
            "images": images / (len(order) * recipe.images_per_sequence),
            "binding": binding / len(order),
        },
        "kinds": by_kind,
        "sources": by_source,
    }


def _fill(stream: _Stream, recipe: DataRecipe) -> dict[str, float]:
    """Return the mean fill in tokens, in images, and of whichever limit binds for this source."""
    sequences = max(1, len(stream.sequences))
    tokens = sum(int(stream.pieces.length[s].sum()) for s in stream.sequences)
    images = sum(int(stream.pieces.images[s].sum()) for s in stream.sequences)
    by_tokens = tokens / sequences / recipe.sequence_length
    by_images = images / sequences / recipe.images_per_sequence
    return {"tokens": by_tokens, "images": by_images, "binding": max(by_tokens, by_images)}


def _save(file: Path, columns: dict[str, np.ndarray]) -> None:
    table = pa.table(columns)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table)))


def _open(file: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all().combine_chunks()
