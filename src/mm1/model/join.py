"""A model's folder from a sharded checkpoint: one file after the other, so that no process holds the whole model.

CHECKPOINT/shard-*.safetensors --read one file's tensors--> FOLDER/model-00001-of-00013.safetensors, ...
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, Metadata
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

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
    shapes = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in names.items()}
    files = split_torch_state_dict_into_shards(shapes, max_shard_size=file_bytes)
    for file, group in files.filename_to_tensors.items():
        tensors = {name: torch.empty_like(shapes[name], device="cpu") for name in group}
        read_tensors(reader, tensors, checkpoint)
        save_file(tensors, folder / file, {"format": "pt"})
    if files.is_sharded:
        index = {"metadata": files.metadata, "weight_map": files.tensor_to_filename}
        write_json(folder / SAFE_WEIGHTS_INDEX_NAME, index)
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def read_tensors(reader: CheckpointReader, tensors: dict[str, torch.Tensor], checkpoint: Path) -> None:
    """Read a model's tensors from a checkpoint, in place.

    Args:
        reader: Of the checkpoint.
        tensors: By the names that they have in the model.
        checkpoint: For messages.

    Raises:
        UserError: If the checkpoint is damaged or belongs to another model.
    """
    try:
        dcp.load(
            {MODEL_PREFIX + name: tensor for name, tensor in tensors.items()},
            storage_reader=reader,
            no_dist=True,
        )
    except (CheckpointException, RuntimeError, KeyError, SafetensorError) as error:
        raise UserError(f"{checkpoint}: the checkpoint doesn't fit the run's recipe or is damaged ({error})") from None
