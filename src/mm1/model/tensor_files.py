"""The tensors of a model's folder, read one at a time and by rows: no process needs a whole model to take its part."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from mm1.errors import UserError

_INDEX = ".index.json"


class TensorFiles:
    """The safetensors files of a folder.

    Args:
        folder: The folder, in one file or several with an index.
        file: The name of the one file to read; default: all of the folder.

    Raises:
        UserError: If there are no such files, or they can't be read.
    """

    def __init__(self, folder: Path, file: str = "*.safetensors") -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        try:
            if indexes := sorted(folder.glob(file + _INDEX)):
                names = json.loads(indexes[0].read_text())["weight_map"]
                self._files = {name: folder / file for name, file in names.items()}
            else:
                for path in sorted(folder.glob(file)):
                    with safe_open(path, "pt") as opened:
                        self._files |= dict.fromkeys(opened.keys(), path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(
                f"{folder}: its weights can't be read ({error}): download or export the model again"
            ) from None
        if not self._files:
            raise UserError(f"{folder}: there are no weights in safetensors: convert the model to this format")

    def __contains__(self, name: str) -> bool:
        return name in self._files

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._files)

    def length(self, name: str) -> int:
        """Return how many rows a tensor has."""
        return self.shape(name)[0]

    def read(self, name: str, rows: slice = slice(None)) -> torch.Tensor:
        """Return a tensor, or some of its rows, on the CPU in the dtype of the file.

        Args:
            name: The tensor's name in the files.
            rows: Which rows of the first dimension.

        Raises:
            UserError: If the file is damaged.
        """
        file = self._files[name]
        try:
            with safe_open(file, "pt") as opened:
                if rows == slice(None):
                    return opened.get_tensor(name)
                part = opened.get_slice(name)
                start, stop, _ = rows.indices(part.get_shape()[0])
                return part[start:stop] if stop > start else torch.empty(0, *part.get_shape()[1:])
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file}: '{name}' can't be read ({error}): download or export the model again") from None

    def shape(self, name: str) -> list[int]:
        """Return the shape of a tensor."""
        with safe_open(self._files[name], "pt") as opened:
            shape: list[int] = opened.get_slice(name).get_shape()
            return shape
