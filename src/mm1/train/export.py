"""The result of a training: a folder in Hugging Face format, complete or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mm1.errors import UserError
from mm1.files import whole_folder
from mm1.train.parallel import World, full_tensor


def write_model(model: PreTrainedModel, processor: Any, folder: Path, world: World) -> None:
    """Gather a model's weights and write them with the processor.

    All ranks must call this function; they return when the folder is complete.

    Args:
        model: The model, sharded or not.
        processor: The processor; has `save_pretrained`.
        folder: The folder to write.
        world: The ranks; the first one writes.

    Raises:
        UserError: On all ranks, if the disk is full.
    """
    gathered: dict[int, torch.Tensor] = {}  # tied parameters are gathered once, so that they stay tied
    parameters = model.state_dict(keep_vars=True).items()
    tensors = {name: gathered.setdefault(id(t), full_tensor(t.detach())) for name, t in parameters}
    with world.errors_shared():  # all ranks wait until the first has written the folder
        if world.is_first:
            _write(model, processor, folder, tensors)


def _write(model: PreTrainedModel, processor: Any, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    try:
        with whole_folder(folder) as partial:
            model.save_pretrained(partial, state_dict=tensors)
            processor.save_pretrained(partial)
    except OSError as error:
        raise UserError(f"{folder}: the model could not be written ({error}): free some space") from error
