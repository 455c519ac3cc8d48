"""The plan: the whole order of training, written before it begins.

    sources (indexes) --cut, pack: parts, over processes--> sequences per source --drawn by weight--> plan

The plan is the paper's fixed snapshot: every model of a study sees the same documents in the same order. Sequence `i`
depends only on the plan, so the state of the data stream is one integer. Sources are packed by parts, over processes
(`mm1.plan.streams`); besides a part this takes 4 bytes of memory per document of the largest source.

    plan/plan.json       hash, limits, figures
    plan/sequences.npy   per sequence: source, first piece; in the order of training
    plan/pieces.npy      per piece: document, first token, length, images; grouped by sequence
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm1.data.shards import open_job
from mm1.errors import UserError
from mm1.files import hold, whole_folder, write_json
from mm1.plan.arrays import ArrayWriter, damaged, map_array, read_values
from mm1.plan.figures import plan_figures, with_present_names
from mm1.plan.mixture import Mixture
from mm1.plan.sources import Source, Totals
from mm1.plan.streams import PARTS_VERSION, PIECE, Drawn, Packing, Stream, make_parts
from mm1.progress import track
from mm1.recipe import DataRecipe

RULE = 2
"""Version of the rule by which a plan is made; part of its hash."""

SEQUENCE = np.dtype([("source", "<i4"), ("first_piece", "<i8")])

_SEQUENCES_AT_ONCE = 65_536


class Plan:
    """A plan on disk, memory-mapped.

    Args:
        directory: The directory that `write_plan` wrote.

    Raises:
        UserError: If one of its files is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.info: dict[str, Any] = with_present_names(read_values(directory / "plan.json"))
        sequences, pieces = map_array(directory / "sequences.npy"), map_array(directory / "pieces.npy")
        self.source, self.first_piece = sequences["source"], sequences["first_piece"]
        self.document, self.first = pieces["document"], pieces["first"]
        self.length, self.images = pieces["length"], pieces["images"]
        if len(sequences) != self.info["sequences"]:
            raise damaged(directory / "sequences.npy", f"{len(sequences)} of {self.info['sequences']} sequences")

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
    workers: int | None = None,
    engine: str = "processes",
) -> Plan:
    """Write the plan, complete or not at all; a plan with the same hash is kept.

    Sequences are packed in a folder beside the plan, where an interrupted call goes on.

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
        workers: Processes that pack; None: one per core, or one for a small plan. The plan doesn't depend on it.
        engine: One of `mm1.data.engines.ENGINES`.

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
    before = read_values(file) if file.is_file() else {}
    if fixed not in (None, name):
        raise UserError(_changed(directory, before.get("made_from") if before.get("hash") == fixed else None, identity))
    if before.get("hash") == name:
        return Plan(directory)
    count = batch_size * steps
    mixture = Mixture(kinds, [(source.kind, source.weight) for source in used], count)
    job = directory.with_name(f"{directory.name}.packing").absolute()
    try:
        job.parent.mkdir(parents=True, exist_ok=True)
        with hold(job.with_name(".plan.lock"), wait=True):
            open_job(job, {"plan": name, "version": PARTS_VERSION})
            streams = [
                Stream(Packing.of(source, job / f"source-{number}", recipe, tokens_per_image, (seed, number)), needed)
                for number, (source, needed) in enumerate(zip(used, _needed(mixture, len(used), count), strict=True))
            ]
            make_parts(streams, job, workers, engine)
            with whole_folder(directory) as partial:
                totals = _write_arrays(partial, mixture, streams, count)
                info = {
                    "hash": name,
                    "sequences": count,
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
            shutil.rmtree(job)
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


def _write_arrays(directory: Path, mixture: Mixture, streams: Sequence[Stream], count: int) -> list[Totals]:
    """Write sequences.npy and pieces.npy; return the amounts taken from each source."""
    sources = [Drawn(stream) for stream in streams]
    with (
        ArrayWriter(directory / "sequences.npy", SEQUENCE) as sequences,
        ArrayWriter(directory / "pieces.npy", PIECE) as pieces,
    ):
        chunks = list(_chunks(count))
        for start, stop in track(chunks, "write the plan") if len(chunks) > 1 else chunks:
            order = mixture(start, stop)
            taken = [source.next(int((order == number).sum())) for number, source in enumerate(sources)]
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
    return [source.totals for source in sources]


def _needed(mixture: Mixture, sources: int, count: int) -> list[int]:
    """Return how many sequences the plan takes of each source."""
    needed = np.zeros(sources, dtype=np.int64)
    for start, stop in _chunks(count):
        needed += np.bincount(mixture(start, stop), minlength=sources)
    return needed.tolist()


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _SEQUENCES_AT_ONCE, count)) for start in range(0, count, _SEQUENCES_AT_ONCE))
