"""One row of an Arrow file that isn't mapped: a few short reads, where a mapping costs more than what is read of it.

    position --read--> [message, small columns] [pictures: of the row only] [small columns]

Arrow parses the message. Of the batch's memory only what belongs to the row, or lies among the small columns, is read.
"""

from __future__ import annotations

import os

import pyarrow as pa

OF_OTHERS = "batches.npy beside it is of other files"
"""What is said if a batch has not the rows that it should have."""

_FIRST_BYTES = 64 * 1024
"""Read first: the message, and most of what is small."""
_MOST_BYTES = 256 * 1024
"""Bytes of a batch without its pictures up to which they are read for one row."""
_LARGEST_BATCH = 4 * 2**20
"""Bytes of a batch up to which memory is taken for it; of larger ones, pictures outweigh a mapping."""


def read_row(file: str, position: int, end: int | None, number: int, schema: pa.Schema) -> pa.RecordBatch | None:
    """Return one row of a batch, as a batch; None if the batch is too large to be read so.

    Args:
        file: The Arrow file.
        position: Where the batch begins.
        end: Where it ends; None: with the file.
        number: The row in the batch.
        schema: The file's columns.

    Raises:
        ValueError: If the batch has no such row, or the file ends before.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        size = (os.fstat(descriptor).st_size if end is None else end) - position
        if size > _LARGEST_BATCH:
            return None
        if hasattr(os, "posix_fadvise"):  # else the system reads ahead of what is asked for; macOS hasn't it
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        # From Arrow's pool, whose pages are there already: fresh ones cost more than the reads.
        memory = pa.allocate_buffer(size)
        view = memoryview(memory).cast("B")

        def read(start: int, stop: int) -> None:
            if start < stop and os.preadv(descriptor, [view[start:stop]], position + start) < stop - start:
                raise ValueError("the file ends before")

        first = min(size, _FIRST_BYTES)
        read(0, first)
        batch = pa.ipc.read_record_batch(memory, schema)
        if number >= batch.num_rows:
            raise ValueError(OF_OTHERS)
        if first < size:
            parts = batch.column("parts")
            _, borders, pictures = parts.values.field("image").buffers()
            any_bytes = pictures is not None and pictures.size > 0
            begin = pictures.address - memory.address if any_bytes else size
            stop = begin + pictures.size if any_bytes else size
            if begin + size - stop > _MOST_BYTES:
                return None
            read(first, begin)
            if any_bytes:
                ends = memoryview(parts.buffers()[1]).cast("i")
                places = memoryview(borders).cast("q")
                read(max(first, begin + places[ends[number]]), begin + places[ends[number + 1]])
            read(max(first, stop), size)
    finally:
        os.close(descriptor)
    return batch.slice(number, 1)
