"""The sizes of a split's pictures, which determine how many images each becomes.

    train/*.arrow --headers only--> index/train-CONTENT-sizes-2.npy --rule--> images per picture, for the plan

The file is stored next to the split, like its index. It is made only if a recipe cuts pictures, and doesn't depend on
the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from mm1.data.corpus import Split
from mm1.document import Image
from mm1.errors import UserError
from mm1.files import whole_file
from mm1.plan.arrays import ArrayWriter, map_array
from mm1.plan.index import IMAGE, build_index
from mm1.plan.lengths import Index
from mm1.processing.images import upright_size
from mm1.processing.processor import MM1Processor
from mm1.processing.tiles import TilingRule, tile
from mm1.progress import progress_bar

_VERSION = 2  # raised when `upright_size` changes


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
    return with_sub_images(index, picture_sizes(split), processor.image_size, processor.rule)


def picture_sizes(split: Split) -> np.ndarray:
    """Return width and height of every picture, turned as its EXIF says.

    They are read from the file next to the split if it exists.

    Returns:
        (pictures, 2) int32, in the order of documents; 0, 0 for a picture that can't be read.

    Raises:
        UserError: If the file can't be written.
    """
    file = sizes_file(split)
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with (
                whole_file(file, shared=True) as partial,
                ArrayWriter(partial, np.int32) as sizes,
                progress_bar() as bar,
            ):
                task = bar.add_task(f"sizes of pictures of {split.name}", total=len(split), note="")
                for chunk in split.parts.chunks:
                    sizes.write([side for size in _sizes(chunk) for side in size])
                    bar.advance(task, len(chunk))
        except OSError as error:
            raise UserError(f"{file}: the sizes of pictures can't be written ({error}): free some space") from error
    return map_array(file).reshape(-1, 2)


def sizes_file(split: Split) -> Path:
    """Return the file of the sizes of a split's pictures, which may not be there yet."""
    return split.directory.parent / "index" / f"{split.directory.name}-{split.content_hash}-sizes-{_VERSION}.npy"


def _sizes(chunk: pa.ListArray) -> Iterator[tuple[int, int]]:
    parts = chunk.flatten()
    texts, images, paths = (parts.field(name) for name in ("text", "image", "path"))
    for row in np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False)):
        image = Image(images[int(row)].as_py(), paths[int(row)].as_py())
        yield upright_size(image.read()) or (0, 0)


def with_sub_images(index: Index, sizes: np.ndarray, size: int, rule: TilingRule) -> Index:
    """Return an index with the number of images that each picture becomes in `MM1Processor.encode`.

    Args:
        index: The split's index.
        sizes: (pictures, 2) sizes of the split's pictures.
        size: Side of the tower's images in pixels.
        rule: The rule by which pictures are cut.
    """
    is_image = index.parts == IMAGE
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    counts = np.array(
        [
            len(tile(max(1, width), max(1, height), size, rule, whole=width == 0))
            for width, height in different.tolist()
        ],
        dtype=np.int32,
    )
    of_part = np.zeros(len(is_image), dtype=np.int32)
    of_part[is_image] = counts[which.reshape(-1)]
    if rule.max_pictures is not None:
        pictures = np.diff(np.concatenate([[0], np.cumsum(is_image)])[index.offsets])
        many = np.repeat(pictures > rule.max_pictures, np.diff(index.offsets))
        of_part[many & is_image] = 1
    return replace(index, sub_images=of_part)
