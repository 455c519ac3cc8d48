"""The sizes of a split's pictures, which determine how many images each becomes.

    train/*.arrow --headers only--> index/train-CONTENT-sizes-2.npy --rule--> index/train-.../images-RULE-1.npy

The sizes are stored next to the split, like its index. They are read only if a recipe cuts pictures, and don't depend
on the rule. The images that pictures become by a rule are stored in the index.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm1.data.corpus import Split, open_split
from mm1.data.schema import from_part
from mm1.data.shards import open_job, run_units, unit_file
from mm1.document import Image
from mm1.errors import UserError
from mm1.files import hold, whole_file
from mm1.plan.arrays import ArrayWriter, map_array
from mm1.plan.index import IMAGE, build_index, index_folder
from mm1.plan.lengths import Index
from mm1.processing.images import upright_size
from mm1.processing.processor import MM1Processor
from mm1.processing.tiles import TilingRule, tile

_VERSION = 2  # raised when `upright_size` changes
_RULE_VERSION = 1  # raised when `tile` changes
_DOCUMENTS_AT_ONCE = 1_000_000
_ROWS_PER_UNIT = 8192
_ONE_PROCESS_BELOW = 100_000  # pictures; more processes take seconds to start


def processor_index(
    split: Split, processor: MM1Processor, workers: int | None = None, engine: str = "processes"
) -> Index:
    """Return a split's index for a processor's tokenizer and its rule for cutting pictures.

    Args:
        split: The documents.
        processor: The processor.
        workers: As in `mm1.plan.index.build_index`.
        engine: As in `mm1.plan.index.build_index`.

    Raises:
        UserError: If the index can't be written.
    """
    index = build_index(split, processor.tokenizer, workers, engine, processor.chat_layout)
    if not processor.rule.cuts:
        return index
    folder = index_folder(split, processor.tokenizer, processor.chat_layout)
    rule = hashlib.blake2b(f"{processor.image_size} {processor.rule}".encode(), digest_size=8).hexdigest()
    file = folder / f"images-{rule}-{_RULE_VERSION}.npy"
    if not file.is_file():
        sizes = picture_sizes(split, workers, engine)
        try:
            with whole_file(file, shared=True) as partial, ArrayWriter(partial, np.int32) as images:
                for some in sub_images(index, sizes, processor.image_size, processor.rule):
                    images.write(some)
        except OSError as error:
            raise UserError(f"{file}: the index can't be written ({error}): free some space") from error
    return replace(index, sub_images=map_array(file))


def picture_sizes(split: Split, workers: int | None = None, engine: str = "processes") -> np.ndarray:
    """Return width and height of every picture, turned as its EXIF says.

    They are read from the file next to the split if it exists; otherwise made there, in a folder where an interrupted
    call goes on.

    Args:
        split: The documents.
        workers: Processes; None: one per core, or one for few pictures.
        engine: As in `mm1.plan.index.build_index`.

    Returns:
        (pictures, 2) int32, in the order of documents; 0, 0 for a picture that can't be read.

    Raises:
        UserError: If the file can't be written, or a process died.
    """
    file = sizes_file(split)
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with hold(file.with_name(f"{file.name}.lock"), wait=True):
                if not file.is_file():  # another process may have written it meanwhile
                    _write_sizes(file, split, workers, engine)
        except OSError as error:
            raise UserError(f"{file}: the sizes of pictures can't be written ({error}): free some space") from error
    return map_array(file).reshape(-1, 2)


def _write_sizes(file: Path, split: Split, workers: int | None, engine: str) -> None:
    job = file.with_suffix(".measuring").absolute()
    units = [range(start, min(start + _ROWS_PER_UNIT, len(split))) for start in range(0, len(split), _ROWS_PER_UNIT)]
    if workers is None and engine == "processes" and split.info["images"] < _ONE_PROCESS_BELOW:
        workers = 1
    open_job(job, {"rows_per_unit": _ROWS_PER_UNIT})
    measure = partial(_measure, split.reference)
    run_units(measure, units, job, workers=workers, description=f"sizes of pictures of {split.name}", engine=engine)
    with whole_file(file, shared=True) as partial_file, ArrayWriter(partial_file, np.int32) as sizes:
        for number in range(len(units)):
            sizes.write(map_array(unit_file(job, number, ".npy")))
    shutil.rmtree(job)


def _measure(reference: str, rows: range, file: Path) -> dict[str, Any]:
    """Write the sizes of the pictures of a range of rows next to `file`."""
    split = _opened(reference)
    with ArrayWriter(file.with_suffix(".npy"), np.int32) as sizes:
        for batch in split.batches(rows.start, rows.stop):
            sizes.write([side for size in _sizes(batch.column("parts"), split.directory.parent) for side in size])
    return {}


@lru_cache(maxsize=4)
def _opened(reference: str) -> Split:
    return open_split(reference)


def sizes_file(split: Split) -> Path:
    """Return the file of the sizes of a split's pictures, which may not be there yet."""
    return split.directory.parent / "index" / f"{split.directory.name}-{split.content_hash}-sizes-{_VERSION}.npy"


def _sizes(documents: pa.ListArray, corpus: Path) -> Iterator[tuple[int, int]]:
    parts = documents.flatten()
    for row in np.flatnonzero(parts.field("text").is_null().to_numpy(zero_copy_only=False)):
        image = from_part(parts[int(row)].as_py(), corpus)
        assert isinstance(image, Image)
        yield upright_size(image.read()) or (0, 0)


def sub_images(index: Index, sizes: np.ndarray, size: int, rule: TilingRule) -> Iterator[np.ndarray]:
    """Yield the number of images that each part becomes in `MM1Processor.encode`: int32, a range of documents at once.

    Args:
        index: The split's index.
        sizes: (pictures, 2) sizes of the split's pictures.
        size: Side of the tower's images in pixels.
        rule: The rule by which pictures are cut.
    """
    known: dict[tuple[int, int], int] = {}
    before = 0  # pictures
    for start in range(0, len(index), _DOCUMENTS_AT_ONCE):
        offsets = index.offsets[start : start + _DOCUMENTS_AT_ONCE + 1]
        is_image = index.parts[offsets[0] : offsets[-1]] == IMAGE
        pictures = int(is_image.sum())
        different, which = np.unique(sizes[before : before + pictures], axis=0, return_inverse=True)
        before += pictures
        counts = []
        for width, height in map(tuple, different.tolist()):
            if (width, height) not in known:
                known[width, height] = len(tile(max(1, width), max(1, height), size, rule, whole=width == 0))
            counts.append(known[width, height])
        of_part = np.zeros(len(is_image), dtype=np.int32)
        of_part[is_image] = np.array(counts, dtype=np.int32)[which.reshape(-1)]
        if rule.max_pictures is not None:
            of_document = np.diff(np.concatenate([[0], np.cumsum(is_image)])[offsets - offsets[0]])
            many = np.repeat(of_document > rule.max_pictures, np.diff(offsets))
            of_part[many & is_image] = 1
        yield of_part
