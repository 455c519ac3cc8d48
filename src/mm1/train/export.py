"""The result of a training: a folder in Hugging Face format, complete or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mm1.errors import UserError
from mm1.files import whole_folder
from mm1.train.parallel import World, whole


def write_model(model: PreTrainedModel, processor: Any, folder: Path, world: World) -> None:
    """Gather a model's weights and write it with what prepares its inputs; all ranks must call this, and
    none returns before it is written.

    Args:
        model: Sharded or not.
        processor: Has `save_pretrained`.
        folder: Where they are to be.
        world: The first rank writes.

    Raises:
        UserError: If the disk is full; on all ranks.
    """
    gathered: dict[int, torch.Tensor] = {}  # tied parameters are gathered once, so that they stay one
    parameters = model.state_dict(keep_vars=True).items()
    tensors = {name: gathered.setdefault(id(t), whole(t.detach())) for name, t in parameters}
    with world.errors_shared():  # no rank goes on to read what the first has not written yet
        if world.is_first:
            _write(model, processor, folder, tensors)


def _write(model: PreTrainedModel, processor: Any, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    try:
        with whole_folder(folder) as partial:
            model.save_pretrained(partial, state_dict=tensors)
            processor.save_pretrained(partial)
    except OSError as error:
        raise UserError(f"{folder}: the model could not be written ({error}): free some space") from error
