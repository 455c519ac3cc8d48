"""The result of a training: a folder in Hugging Face format, complete or absent.

One process writes the model that it holds. Several write their parts of it, which the first then joins, file by file.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter
from transformers import PreTrainedModel

from mm1.errors import UserError
from mm1.files import PARTIAL, whole_folder
from mm1.model.join import MODEL_PREFIX, saved_tensors, write_joined
from mm1.train.checkpoint import reason
from mm1.train.parallel import World


def write_model(model: PreTrainedModel, processor: Any, folder: Path, world: World) -> None:
    """Write a model's weights with the processor.

    All ranks must call this function; they return when the folder is complete.

    Args:
        model: The model, sharded or not.
        processor: The processor; has `save_pretrained`.
        folder: The folder to write.
        world: The ranks; the first one joins their parts.

    Raises:
        UserError: On all ranks, if the disk is full.
    """
    parts = folder.with_name(f"{folder.name}.parts{PARTIAL}")
    if world.size > 1:
        with world.errors_shared():
            if world.is_first:
                _make_folder(parts, folder)
        with world.errors_shared():
            _write_parts(model, parts, world, folder)
    with world.errors_shared():  # all ranks wait until the first has written the folder
        if world.is_first:
            try:
                with whole_folder(folder) as partial:
                    if world.size == 1:
                        model.save_pretrained(partial)
                    else:
                        write_joined(model, parts, partial)
                    processor.save_pretrained(partial)
            except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
                raise _no_room(folder, error) from error
            finally:
                shutil.rmtree(parts, ignore_errors=True)


def _make_folder(parts: Path, folder: Path) -> None:
    shutil.rmtree(parts, ignore_errors=True)
    try:
        parts.mkdir(parents=True)
    except OSError as error:
        raise _no_room(folder, error) from error


def _write_parts(model: PreTrainedModel, parts: Path, world: World, folder: Path) -> None:
    try:
        dcp.save(
            {MODEL_PREFIX + name: tensor for name, tensor in saved_tensors(model).items()},
            storage_writer=HuggingFaceStorageWriter(str(parts), save_distributed=True),
            process_group=world.saving,
        )
    except (OSError, SafetensorError, CheckpointException) as error:
        raise _no_room(folder, error) from error


def _no_room(folder: Path, error: BaseException) -> UserError:
    return UserError(f"{folder}: the model could not be written ({reason(error)}): free some space")
