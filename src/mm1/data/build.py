"""Build a corpus from users' files: read shard by shard, over several processes, restartable.

    build_from("webdataset", ["shards/{00000..00041}.tar"], Path("data/laion"))

Ids are `source file/key`, so they tell where a document came from and differ across shards by construction. Every
document is a pure function of its shard: the corpus is the same whatever the number of processes and interruptions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mm1.data.corpus import ShardWriter
from mm1.data.readers import make_reader
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.shards import Unit, Work, gather_split, merge_reasons, open_job, run_units
from mm1.files import link, whole_folder, write_json
from mm1.version import __version__

# Raised when a reader's output changes for the same sources: corpora built by an earlier one are built anew.
READER_VERSION = 2


def build_from(
    format: str,
    patterns: Sequence[str],
    directory: Path,
    *,
    split: str = "train",
    workers: int | None = None,
    options: Mapping[str, Any] | None = None,
    licence: str = "not stated",
    force: bool = False,
    engine: str = "processes",
) -> dict[str, Any]:
    """Build one split of a corpus from files, unless it is there already from the same files and options.

    Other splits of the corpus stay. An interrupted build goes on: shards that are done are kept beside the corpus,
    in `NAME.building-SPLIT`, until it is complete.

    Args:
        format: One of `mm1.data.readers.READERS`.
        patterns: Files, directories, globs, or braces as in `{00000..00041}.tar` (Hub ids for `hub`).
        directory: Where the corpus is to be, such as `data/laion`.
        split: The split to build.
        workers: Processes; default: as many as there are cores.
        options: The reader's options.
        licence: The licence of the material, for people to read.
        force: Build it even if it is there.
        engine: Where it is done: `processes` of this machine, or `ray` for a cluster.

    Returns:
        The content of `corpus.json`.

    Raises:
        UserError: If the format or an option is unknown, a pattern names nothing, a file isn't what the format
            says, no document is found, or the corpus can't be written.
    """
    reader = make_reader(format, **(options or {}))
    shards = reader.shards(patterns)
    job = {
        "format": format,
        "options": dataclasses.asdict(reader),
        "patterns": list(patterns),
        "sources": _fingerprint(shards),
        "reader_version": READER_VERSION,
    }
    return build_split(
        partial(read_shard, reader),
        shards,
        directory,
        split,
        job,
        workers=workers,
        description=f"read {directory.name}/{split}",
        force=force,
        engine=engine,
        licence=licence,
    )


def build_split(
    work: Work[Unit],
    units: Sequence[Unit],
    directory: Path,
    split: str,
    job: Mapping[str, Any],
    *,
    workers: int | None,
    description: str,
    force: bool,
    engine: str = "processes",
    **entries: Any,
) -> dict[str, Any]:
    """Build one split of a corpus unit by unit, unless the same job has built it; other splits stay.

    Args:
        work: See `run_units`.
        units: Likewise.
        directory: The corpus.
        split: The split to build.
        job: What decides the split's content, as JSON values.
        workers: See `run_units`.
        description: Likewise.
        force: Build it even if it is there.
        engine: See `run_units`.
        entries: Of `corpus.json`: `licence`, and what else there is to say.

    Returns:
        The content of `corpus.json`.

    Raises:
        UserError: See `run_units`; or no document comes out of it.
    """
    present = read_info(directory)
    if not force and present and present["splits"].get(split, {}).get("built") == job:
        return present
    folder = directory.with_name(f"{directory.name}.building-{split}")
    open_job(folder, job)
    infos = run_units(work, units, folder, workers=workers, description=description, engine=engine)
    others = {name: entry for name, entry in (present or {"splits": {}})["splits"].items() if name != split}
    return publish(directory, {split: (folder, infos, {"built": job})}, keep=others, **entries)


def read_shard(reader: Reader, shard: Shard, file: Path) -> dict[str, Any]:
    """Read one shard and write its documents to an Arrow file, with their digests beside it.

    Returns:
        Counts of documents, images, characters and kinds; what was skipped and changed, by reason.
    """
    notes = Notes()
    writer = ShardWriter(file)
    for document in reader.read(shard, notes):
        if document.id in writer:
            number = 2
            while f"{document.id}#{number}" in writer:
                number += 1
            notes.changed.add("id that was there before: a number added", document.id)
            document = dataclasses.replace(document, id=f"{document.id}#{number}")
        writer.write(document)
    info = writer.finish()
    file.with_suffix(".digests").write_bytes(writer.digests)
    reasons = {name: getattr(notes, name).as_dict() for name in ("skipped", "lost", "changed")}
    counts = {"read": notes.read, "pictures_left_out": notes.pictures_left_out, "missing": notes.missing}
    return {**info, **counts, **reasons}


def publish(
    directory: Path,
    made: Mapping[str, tuple[Path, Sequence[Mapping[str, Any]], Mapping[str, Any]]],
    *,
    keep: Mapping[str, Any],
    licence: str,
    **more: Any,
) -> dict[str, Any]:
    """Put finished jobs together as a corpus, in the place of what is there; remove the jobs' folders.

    Args:
        directory: The corpus.
        made: For every split made: the job's folder, what `run_units` returned, and further entries.
        keep: Entries of `corpus.json` of splits that are in `directory` and stay.
        licence: Of the material.
        more: Further entries of `corpus.json`.

    Returns:
        The content of `corpus.json`.
    """
    splits = dict(keep)
    with whole_folder(directory) as new:
        for split in keep:
            shutil.copytree(directory / split, new / split, copy_function=link)
        for split, (folder, infos, entries) in made.items():
            splits[split] = {**gather_split(folder, infos, new / split), **entries}
        sources = [pattern for split in splits.values() for pattern in split.get("built", {}).get("patterns", [])]
        info = {
            "name": directory.name,
            "licence": licence,
            "sources": list(dict.fromkeys(sources)),
            "derived": None,
            "options": {},
            "mm1_version": __version__,
            "splits": splits,
            "skipped": merge_reasons(split.get("skipped", {}) for split in splits.values()),
            "changed": merge_reasons(split.get("changed", {}) for split in splits.values()),
            **more,
        }
        write_json(new / "corpus.json", info)
    for folder, _, _ in made.values():
        shutil.rmtree(folder, ignore_errors=True)
    return info


def read_info(directory: Path) -> dict[str, Any] | None:
    """Return the content of a directory's `corpus.json`; None if it has none that can be read."""
    try:
        info = json.loads((directory / "corpus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) and isinstance(info.get("splits"), dict) else None


def _fingerprint(shards: Sequence[Shard]) -> str:
    """Return a hash of which files there are, how they are grouped, their sizes and times of change."""
    digest = hashlib.blake2b(digest_size=16)
    for shard in shards:
        digest.update(f"{shard.part}/{shard.parts}\n".encode())
        for file in shard.files:
            state = os.stat(file) if os.path.isfile(file) else None
            facts = (shard.name(file) if state else file, state and (state.st_size, state.st_mtime_ns))
            digest.update(f"{facts}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
