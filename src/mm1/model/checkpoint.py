"""The checkpoints of a run, and the model that one of them holds.

RUN/checkpoints/step-000750 --recipe, tokenizer--> RUN/models/step-000750   (in Hugging Face format, made once)
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError

from mm1.errors import UserError
from mm1.files import whole_folder
from mm1.model.ends import end_with_turns
from mm1.model.factory import build_model, load_whole
from mm1.model.join import CheckpointReader, read_tensors, write_joined
from mm1.model.lora import adapter_tensors, check_drawn_base, merged, set_trained
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.processor import recipe_processor, token_ids
from mm1.model.sharded_start import Share, start_sharded
from mm1.processing.processor import MM1Processor
from mm1.processing.tokenizer import load_tokenizer
from mm1.progress import console
from mm1.recipe import Recipe


def checkpoints(directory: Path) -> list[Path]:
    """Return the complete checkpoints of a run's `checkpoints`, the oldest first."""
    return sorted(path for path in directory.glob("step-*") if (path / "state.json").is_file() and not path.suffix)


def checkpoint_of(run: Path, step: int) -> Path:
    """Return the checkpoint of a step.

    Raises:
        UserError: If the run has none; those that it has are named.
    """
    found = {int(path.name.removeprefix("step-")): path for path in checkpoints(run / "checkpoints")}
    if step not in found:
        there = ", ".join(map(str, found)) or "none (the training has not begun, or they were removed)"
        raise UserError(f"{run}@{step}: the run has no checkpoint of step {step}: there are {there}")
    return found[step]


def step_model(run: Path, step: int, recipe: Recipe) -> Path:
    """Return the folder of the model that a checkpoint holds; it is made on first use.

    Args:
        run: The run's directory.
        step: How many steps had been made.
        recipe: The run's, its models resolved (see `mm1.model.resolve.resolve_models`).

    Raises:
        UserError: If there is no such checkpoint, or it can't be read.
    """
    folder = run / "models" / f"step-{step:06d}"
    if (folder / "config.json").is_file():
        return folder
    checkpoint = checkpoint_of(run, step)
    console.print(f"{run}: making a model of step {step:,}")
    tokenizer = load_tokenizer(recipe.model.tokenizer_from or run / "tokenizer")
    processor = recipe_processor(recipe, tokenizer)
    start = start_sharded(
        recipe.model,
        **token_ids(processor),
        share=Share(0, 1),
        resumes=True,
    )
    end_with_turns(start.model, processor)
    try:
        with whole_folder(folder, shared=True) as partial:
            if recipe.train.lora is None:
                write_joined(start.model, checkpoint, partial)
            else:
                _adapted(start.model, checkpoint, run, recipe, processor).save_pretrained(partial)
            processor.save_pretrained(partial)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise UserError(f"{folder}: the model could not be written ({error}): free some space") from error
    return folder


def _adapted(
    shape: MM1ForConditionalGeneration, checkpoint: Path, run: Path, recipe: Recipe, processor: MM1Processor
) -> MM1ForConditionalGeneration:
    """Return the model of a checkpoint that holds adapters: they are merged into what the run began with.

    Args:
        shape: The model without contents.
        checkpoint: Of the run.
        run: Its directory, which holds what it began with if it has ended and that is no model of its own.
        recipe: The run's, its models resolved.
        processor: Of the model.
    """
    lora = recipe.train.lora
    assert lora is not None
    set_trained(shape, recipe.train)
    tensors = {name: torch.empty_like(tensor, device="cpu") for name, tensor in adapter_tensors(shape).items()}
    read_tensors(CheckpointReader(checkpoint), tensors, checkpoint)
    if (run / "base" / "config.json").is_file():
        base = load_whole(str(run / "base"), None, len(processor.tokenizer))
    else:
        check_drawn_base(run, recipe)
        base = build_model(recipe.model, **token_ids(processor), seed=recipe.seed)
        end_with_turns(base, processor)
    return merged(base, lora, tensors)
