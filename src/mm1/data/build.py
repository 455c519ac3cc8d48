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
from itertools import islice
from pathlib import Path
from typing import Any, cast

from mm1.data.limit import LimitedWork, run_until
from mm1.data.losses import MAX_LOSSES, Losses
from mm1.data.place import check_place, check_split, keep_others, read_info
from mm1.data.readers import make_reader
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.shards import (
    REASONS,
    Unit,
    Work,
    gather_split,
    nothing_left,
    open_job,
    run_units,
    sum_units,
)
from mm1.data.skips import merge_reasons
from mm1.data.writer import ShardWriter
from mm1.errors import UserError
from mm1.files import link, whole_folder, write_json
from mm1.places import is_address
from mm1.remote.objects import State, states_of
from mm1.version import __version__

# Raised when a reader's output changes for the same sources: corpora built by an earlier one are built anew.
READER_VERSION = 5

_JOINED_BYTES = 16 * 2**20  # of source files that are read together
_JOINED_FILES = 1000

Made = Mapping[str, tuple[Path, Sequence[Mapping[str, Any]], Mapping[str, Any]]]
"""For every split made: the job's folder, what `run_units` returned, and further entries of `corpus.json`."""


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
    max_losses: float | None = MAX_LOSSES,
    limit: int | None = None,
    in_place: bool = False,
) -> dict[str, Any]:
    """Build one split of a corpus from files, unless it is there already from the same files and options.

    Other splits of the corpus stay. An interrupted build goes on: shards that are done are kept beside the corpus,
    in `NAME.building-SPLIT`, until it is complete.

    Args:
        format: One of `mm1.data.readers.READERS`.
        patterns: Files, directories, globs, or braces as in `{00000..00041}.tar`, or addresses of them (Hub ids for
            `hub`).
        directory: Where the corpus is to be, such as `data/laion`.
        split: The split to build.
        workers: Processes; default: as many as there are cores.
        options: The reader's options.
        licence: The licence of the material, for people to read.
        force: Build it even if it is there.
        engine: Where it is done: `processes` of this machine, or `ray` for a cluster.
        max_losses: Share of the records that may be left out; None: any, and all pictures too.
        limit: Documents that are taken: the first, in the order of the files. Nothing behind them is read.
        in_place: Whether pictures and long texts that lie in the files as they are stay there (`mm1.data.references`).

    Returns:
        The content of `corpus.json`.

    Raises:
        UserError: If the format or an option is unknown, the split can't have its name, a pattern names nothing, a file
            isn't what the format says, no document is found, too many records or all pictures are left out (the rest
            is then a corpus beside, `NAME.incomplete-SPLIT`), the directory is no corpus and not empty or has a source
            file in it, or the corpus can't be written.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}: take at least one document, or leave it out to take all")
    check_split(split)
    reader = make_reader(format, **(options or {}))
    reader = _at_commit(reader, format, patterns, None if force else _earlier_job(directory, split))
    found = reader.shards(patterns)
    states = _states(found)
    shards = _joined(found, states)
    check_place(directory, (file for shard in shards for file in shard.files))
    chosen = dataclasses.asdict(reader)
    job = {
        "format": format,
        "options": chosen,
        "patterns": list(patterns),
        "sources": _fingerprint(shards, states),
        "reader_version": READER_VERSION,
        **({} if limit is None else {"limit": limit}),
        **({"in_place": True} if in_place else {}),
    }
    return build_split(
        partial(read_shard, reader, in_place=directory.absolute()) if in_place else partial(read_shard, reader),
        shards,
        directory,
        split,
        job,
        workers=workers,
        description=f"read {directory.name}/{split}",
        force=force,
        engine=engine,
        losses=None if max_losses is None else Losses(max_losses, chosen),
        limit=limit,
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
    losses: Losses | None = None,
    limit: int | None = None,
    **entries: Any,
) -> dict[str, Any]:
    """Build one split of a corpus unit by unit, unless the same job has built it; other splits stay.

    Args:
        work: See `run_units`; with a limit, `mm1.data.limit.LimitedWork`.
        units: Likewise.
        directory: The corpus.
        split: The split to build.
        job: What decides the split's content, as JSON values.
        workers: See `run_units`.
        description: Likewise.
        force: Build it even if it is there.
        engine: See `run_units`.
        losses: What may be lost; None: anything.
        limit: See `mm1.data.limit.run_until`; the job says it too.
        entries: Of `corpus.json`: `licence`, and what else there is to say.

    Returns:
        The content of `corpus.json`.

    Raises:
        UserError: See `run_units`; or no document comes out of it, or too few, or the directory holds something else.
    """
    present = read_info(directory)
    if not force and present and present["splits"].get(split, {}).get("built") == job:
        return present
    check_place(directory)
    folder = _job_folder(directory, split)
    open_job(folder, job)
    how: Any = {"workers": workers, "description": description, "engine": engine}
    if limit is None:
        infos = run_units(work, units, folder, **how)
    else:
        infos = run_until(cast(LimitedWork[Unit], work), units, folder, limit, **how)
    made = {split: (folder, infos, {"built": job})}
    aside = directory.with_name(f"{directory.name}.incomplete-{split}")
    if losses is not None:
        _check(sum_units(infos), losses, made, aside, f"{directory.name}/{split}", entries)
    shutil.rmtree(aside, ignore_errors=True)
    others = {name: entry for name, entry in (present or {"splits": {}})["splits"].items() if name != split}
    return publish(directory, made, keep=others, **entries)


def _check(
    counts: Mapping[str, Any], losses: Losses, made: Made, aside: Path, name: str, entries: Mapping[str, Any]
) -> None:
    """Raise `UserError` if a split has no document or has lost too much; what is left is then a corpus aside."""
    if counts["documents"] == 0:
        raise UserError(f"{name}: {nothing_left(counts)}{losses.remedy(counts)}")
    problem = losses.problem(counts)
    if problem is None:
        return
    publish(aside, made, keep={}, keep_jobs=True, **entries)
    raise UserError(
        f"{name}: {problem}. What is left lies in {aside}, its corpus.json says what is not; to keep it, run the same "
        "command again with --accept-losses"
    )


def read_shard(
    reader: Reader, shard: Shard, file: Path, most: int | None = None, in_place: Path | None = None
) -> dict[str, Any]:
    """Read one shard and write its documents to an Arrow file, with their digests beside it.

    Args:
        reader: Of the format.
        shard: What is read.
        file: What is written.
        most: Documents after which reading stops; None: all are read.
        in_place: See `ShardWriter`.

    Returns:
        Counts of records, documents, images, characters and kinds; what was skipped, lost and changed, by reason.
    """
    notes = Notes()
    writer = ShardWriter(file, in_place)
    # The file is in a folder of this process, within the job's.
    beside = str(file.absolute().parent.parent / file.stem)
    for document in islice(reader.read(dataclasses.replace(shard, beside=beside), notes), most):
        if document.id in writer:
            number = 2
            while f"{document.id}#{number}" in writer:
                number += 1
            notes.changed.add("id that was there before: a number added", document.id)
            document = dataclasses.replace(document, id=f"{document.id}#{number}")
        writer.write(document)
    info = writer.finish()
    file.with_suffix(".digests").write_bytes(writer.digests)
    reasons = {name: getattr(notes, name).as_dict() for name in REASONS}
    reasons["unread"] = merge_reasons([shard.unread, reasons["unread"]])
    untaken = notes.documents - info["documents"]  # of a record of several, if the limit falls among them
    counts = {
        "read": notes.read - untaken,
        "pictures_left_out": notes.pictures_left_out,
        "missing": notes.missing,
        **({} if most is None else {"most": most}),
    }
    return {**info, **counts, **reasons}


def publish(
    directory: Path,
    made: Made,
    *,
    keep: Mapping[str, Any],
    licence: str,
    keep_jobs: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Put finished jobs together as a corpus, in the place of what is there; remove the jobs' folders.

    Args:
        directory: The corpus.
        made: What was made.
        keep: Entries of `corpus.json` of splits that are in `directory` and stay.
        licence: Of the material.
        keep_jobs: Whether the jobs' folders stay.
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
        keep_others(directory, new, (read_info(directory) or {"splits": {}})["splits"])
        sources = [pattern for split in splits.values() for pattern in split.get("built", {}).get("patterns", [])]
        info = {
            "name": directory.name,
            "licence": licence,
            "sources": list(dict.fromkeys(sources)),
            "derived": None,
            "options": {},
            "mm1_version": __version__,
            "splits": splits,
            **{name: merge_reasons(split.get(name, {}) for split in splits.values()) for name in REASONS},
            **more,
        }
        write_json(new / "corpus.json", info)
    for folder, _, _ in () if keep_jobs else made.values():
        shutil.rmtree(folder, ignore_errors=True)
    return info


def _at_commit(reader: Reader, format: str, patterns: Sequence[str], earlier: Mapping[str, Any] | None) -> Reader:
    """Return the reader at a commit of what it reads: that of an earlier job on the same, else the newest."""
    earlier = earlier or {}
    before = earlier.get("options", {})
    is_same = (earlier.get("format"), earlier.get("patterns")) == (format, list(patterns))
    is_same = is_same and {**before, "revision": ""} == {"revision": "", **dataclasses.asdict(reader)}
    return reader.at_commit(patterns, before.get("revision") if is_same else None)


def _earlier_job(directory: Path, split: str) -> dict[str, Any] | None:
    """Return the job that is under way for a split, else the one that has built it; None if there is none."""
    try:
        job = json.loads((_job_folder(directory, split) / "job.json").read_text())
    except (OSError, ValueError):
        job = ((read_info(directory) or {"splits": {}})["splits"].get(split) or {}).get("built")
    return job if isinstance(job, dict) else None


def _job_folder(directory: Path, split: str) -> Path:
    return directory.with_name(f"{directory.name}.building-{split}")


def _states(shards: Sequence[Shard]) -> dict[str, State]:
    """Return the states of the shards' files, without names that are none (of datasets of the Hub)."""
    files = [file for shard in shards for file in shard.files]
    return states_of(file for file in files if is_address(file) or os.path.isfile(file))


def _joined(shards: Sequence[Shard], states: Mapping[str, State]) -> list[Shard]:
    """Return shards with small neighbours as one: each costs a few milliseconds, whatever is in it."""
    joined: list[Shard] = []
    room = 0
    for shard in shards:
        is_whole = shard.parts == 1 and all(file in states for file in shard.files)
        size = sum(states[file].size for file in shard.files) if is_whole else _JOINED_BYTES + 1
        room -= size
        if joined and room >= 0 and len(joined[-1].files) + len(shard.files) <= _JOINED_FILES:
            joined[-1] = dataclasses.replace(joined[-1], files=(*joined[-1].files, *shard.files))
        else:
            joined.append(shard)
            room = _JOINED_BYTES - size
    return joined


def _fingerprint(shards: Sequence[Shard], states: Mapping[str, State]) -> str:
    """Return a hash of which files there are, how they are grouped, and their states."""
    digest = hashlib.blake2b(digest_size=16)
    for shard in shards:
        digest.update(f"{shard.part}/{shard.parts}\n".encode())
        for file in shard.files:
            state = states.get(file)
            facts = (shard.name(file) if state else file, state and tuple(state))
            digest.update(f"{facts}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
