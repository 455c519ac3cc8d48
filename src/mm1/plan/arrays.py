"""Arrays on disk: `.npy` files that are written chunk by chunk and read memory-mapped."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, DTypeLike

from mm1.errors import UserError


class ArrayWriter:
    """Writes a one-dimensional array of unknown length, chunk by chunk.

    Args:
        file: The `.npy` file, in an existing directory.
        dtype: The elements' dtype.
    """

    def __init__(self, file: Path, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._file = file.open("wb")
        self._write_header()

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The header is rewritten in place; numpy pads it so that any length fits.
        try:
            self._file.seek(0)
            self._write_header()
        finally:
            self._file.close()

    def write(self, values: ArrayLike) -> None:
        """Append values."""
        chunk = np.ascontiguousarray(values, dtype=self.dtype)
        self._file.write(chunk.tobytes())
        self.length += len(chunk)

    def _write_header(self) -> None:
        description = npy.dtype_to_descr(self.dtype)
        npy.write_array_header_1_0(self._file, {"descr": description, "fortran_order": False, "shape": (self.length,)})


def map_array(file: Path) -> np.ndarray:
    """Open a `.npy` file without reading it into memory.

    Raises:
        UserError: If it is missing or damaged.
    """
    try:
        # A plain array, since `np.memmap` reads single elements slowly.
        return np.asarray(np.load(file, mmap_mode="r"))
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise damaged(file, error) from error


def read_values(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file beside arrays.

    Raises:
        UserError: If it is missing or damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise damaged(file, error) from error
    if not isinstance(content, dict):
        raise damaged(file, "not a JSON object")
    return content


def damaged(file: Path, error: Exception | str) -> UserError:
    """Return the error to raise for a file of a plan or an index, whose folder can be made again.

    Args:
        file: The file that can't be read.
        error: The reason.
    """
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return UserError(
        f"{file}: the file is missing or damaged ({reason}): remove the folder {file.parent}, and run the same command "
        "again, which makes it anew"
    )


def mapped_file(array: np.ndarray) -> Path | None:
    """Return the file that an array of `map_array` is mapped from; None if it is another one, or a part of one."""
    mapped = array.base
    if isinstance(mapped, np.memmap) and mapped.size == array.size and mapped.ctypes.data == array.ctypes.data:
        return Path(str(mapped.filename))
    return None


def on_disk(array: np.ndarray, file: Path) -> Path:
    """Return the file that an array is mapped from; of one that isn't, a file that is written.

    Args:
        array: The array.
        file: The `.npy` file to write if there is none yet.
    """
    mapped = mapped_file(array)
    if mapped is None:
        np.save(file, array)
    return mapped or file
