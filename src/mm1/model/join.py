"""A model's folder from a sharded checkpoint: one file after the other, so that no process holds the whole model.

CHECKPOINT/shard-*.safetensors --read one file's tensors--> FOLDER/model-00001-of-00013.safetensors, ...
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, Metadata
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from mm1.errors import UserError
from mm1.files import write_json

FILE_BYTES = 5 * 10**9
"""Largest size of a file of weights; a single larger tensor has a file of its own."""
MODEL_PREFIX = "model."
"""Begins the names of a model's tensors in a checkpoint; the optimizer's begin otherwise."""


class CheckpointReader(HuggingFaceStorageReader):
    """Reads a checkpoint's headers, one a file, at most once; the library reads them anew for every load.

    Args:
        checkpoint: The folder of the checkpoint.
        metadata: What the headers say, if it is known: then no header is read.
    """

    def __init__(self, checkpoint: Path, metadata: Metadata | None = None) -> None:
        super().__init__(str(checkpoint))
        self._metadata = metadata

    def read_metadata(self) -> Metadata:
        """Return the names, shapes and places of all tensors."""
        if self._metadata is None:
            self._metadata = super().read_metadata()
        return self._metadata


def saved_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers that are written, by name; of tied ones the first."""
    parameters = dict(model.named_parameters())
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - parameters.keys()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def write_joined(model: PreTrainedModel, checkpoint: Path, folder: Path, file_bytes: int = FILE_BYTES) -> None:
    """Write the model that a checkpoint holds, as `save_pretrained` does.

    Args:
        model: Gives configuration and names; its weights are not read.
        checkpoint: A checkpoint of any number of ranks.
        folder: The folder to write to; it exists.
        file_bytes: Largest size of a file.

    Raises:
        UserError: If the checkpoint is damaged or belongs to another model.
        OSError: If the files can't be written.
    """
    reader, names = CheckpointReader(checkpoint), saved_tensors(model)
    groups = list(_groups(names, file_bytes))
    files = (
        [SAFE_WEIGHTS_NAME]
        if len(groups) == 1
        else [f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)]
    )
    for file, group in zip(files, groups, strict=True):
        tensors = {name: torch.empty(names[name].shape, dtype=names[name].dtype) for name in group}
        _read(reader, tensors, checkpoint)
        save_file(tensors, folder / file, {"format": "pt"})
    if len(groups) > 1:
        where = {name: file for file, group in zip(files, groups, strict=True) for name in group}
        size = sum(tensor.nbytes for tensor in names.values())
        write_json(folder / SAFE_WEIGHTS_INDEX_NAME, {"metadata": {"total_size": size}, "weight_map": where})
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def _groups(names: dict[str, torch.Tensor], file_bytes: int) -> Iterator[list[str]]:
    """Divide names into files."""
    group: list[str] = []
    size = 0
    for name, tensor in names.items():
        if group and size + tensor.nbytes > file_bytes:
            yield group
            group, size = [], 0
        group.append(name)
        size += tensor.nbytes
    yield group


def _read(reader: CheckpointReader, tensors: dict[str, torch.Tensor], checkpoint: Path) -> None:
    try:
        dcp.load(
            {MODEL_PREFIX + name: tensor for name, tensor in tensors.items()},
            storage_reader=reader,
            no_dist=True,
        )
    except (CheckpointException, RuntimeError, KeyError, SafetensorError) as error:
        raise UserError(f"{checkpoint}: the checkpoint doesn't fit the run's recipe or is damaged ({error})") from None
