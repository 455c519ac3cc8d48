"""The result of a training with adapters: the adapter, what it is for, and the model with the adapter merged.

RUN/adapter     for PeftModel.from_pretrained
RUN/base        the model that training began with, unless that is a model of its own (`model.from`)
RUN/model       both merged: a model like any other
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError

from mm1.errors import UserError
from mm1.files import whole_folder
from mm1.model import MM1ForConditionalGeneration
from mm1.model.ends import end_with_turns
from mm1.model.factory import build_model
from mm1.model.lora import BEGAN_WITH, adapter_tensors, check_drawn_base, drawn_base, merged, write_adapter
from mm1.model.processor import token_ids
from mm1.model.resolve import model_hash
from mm1.places import parse_model_name
from mm1.processing.processor import MM1Processor
from mm1.progress import console
from mm1.recipe import Recipe
from mm1.train.changes import latest_step, read_if_there
from mm1.train.checkpoint import reason
from mm1.train.parallel import World
from mm1.train.sharding import full_tensor


def starting_weights(resolved: Recipe, directory: Path) -> str | None:
    """Return what the weights are that adapters are added to, which no checkpoint of the run holds.

    Args:
        resolved: The recipe with resolved models.
        directory: The run's directory.

    Returns:
        The hashes of what is read, and how the rest is drawn; None if the recipe has no adapters.

    Raises:
        UserError: If the run began with other weights.
    """
    if resolved.train.lora is None:
        return None
    model = resolved.model
    folders = [part.from_ for part in (model, model.vision, model.language_model) if part.from_]
    found = " ".join([*(model_hash(Path(folder)) for folder in folders), *filter(None, [drawn_base(resolved)])])
    if not latest_step(directory):
        return found
    check_drawn_base(directory, resolved)
    began = read_if_there(directory).get(BEGAN_WITH, found)
    if began != found:
        raise UserError(
            f"{directory}: the model that the adapters are for has changed since the run began ({', '.join(folders)}): "
            "bring it back, or choose another directory with --to"
        )
    return found


def write_adapted(
    model: MM1ForConditionalGeneration,
    processor: MM1Processor,
    recipe: Recipe,
    resolved: Recipe,
    directory: Path,
    result: Path,
    world: World,
) -> None:
    """Write the adapter of a run and the merged model.

    All ranks must call this function; they return when the folders are complete. The first rank builds the base once
    more, in float32 in the memory of its host.

    Args:
        model: The model with adapters, sharded or not.
        processor: The model's processor.
        recipe: As it was written, to name the base.
        resolved: The recipe with resolved models.
        directory: The run's directory.
        result: The folder of the merged model.
        world: The ranks.

    Raises:
        UserError: On all ranks, if the disk is full.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in adapter_tensors(model).items():
        whole = full_tensor(tensor.detach())
        if world.is_first:
            tensors[name] = whole.cpu()
    with world.waiting_long(), world.errors_shared():
        if world.is_first:
            try:
                _write(model, tensors, processor, recipe, resolved, directory, result)
            except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
                raise UserError(
                    f"{result}: the model could not be written ({reason(error)}): free some space"
                ) from error


def _write(
    model: MM1ForConditionalGeneration,
    tensors: dict[str, torch.Tensor],
    processor: MM1Processor,
    recipe: Recipe,
    resolved: Recipe,
    directory: Path,
    result: Path,
) -> None:
    assert resolved.train.lora is not None
    base = build_model(resolved.model, **token_ids(processor), seed=resolved.seed)
    end_with_turns(base, processor)
    name, revision = _base_name(recipe, resolved, base)
    if name is None:
        with whole_folder(directory / "base") as partial:
            base.save_pretrained(partial)
            processor.save_pretrained(partial)
        name = str((directory / "base").resolve())
    with whole_folder(directory / "adapter") as partial:
        write_adapter(model, tensors, name, revision, partial)
        processor.save_pretrained(partial)
    console.print(f"the adapter: {directory / 'adapter'}, for {name}")
    with whole_folder(result) as partial:
        merged(base, resolved.train.lora, tensors).save_pretrained(partial)
        processor.save_pretrained(partial)


def _base_name(recipe: Recipe, resolved: Recipe, base: MM1ForConditionalGeneration) -> tuple[str | None, str | None]:
    """Return folder or Hub id of the base, with its revision; None if there is no folder of that very model.

    A model put together from parts has none, and neither has one whose position embeddings were interpolated.
    """
    if recipe.model.from_ is None or resolved.model.from_ is None:
        return None, None
    own = MM1ForConditionalGeneration.config_class.from_pretrained(resolved.model.from_)
    if own.vision_config.image_size != base.config.vision_config.image_size:
        return None, None
    written = parse_model_name(recipe.model.from_)
    if written.kind == "hub":
        return written.place, written.version
    return str(Path(resolved.model.from_).resolve()), None
