"""Scores during training: passes the current weights to a function that scores them.

This package doesn't know how to score: `pretrain` takes a `Score` (`mm1.evaluate.during` makes one).
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.lora import add_adapters
from mm1.processing.processor import MM1Processor
from mm1.recipe import LoraRecipe, Recipe
from mm1.train.loop import Scoring
from mm1.train.memory import is_out_of_memory
from mm1.train.parallel import World
from mm1.train.sharding import full_tensor
from mm1.train.tracking import Samples

Score = Callable[[MM1ForConditionalGeneration, MM1Processor, Path, str, str], tuple[dict[str, float], Samples]]
"""Takes an unsharded model in evaluation mode, its processor, the folder for results, the model's name and its hash;
returns scores by name, and samples by the same names. All ranks call it and share the work."""


def scoring(
    score: Score | None,
    recipe: Recipe,
    directory: Path,
    model: MM1ForConditionalGeneration,
    processor: MM1Processor,
    plan_hash: str,
    world: World,
) -> Scoring | None:
    """Return what the loop needs to score the weights during training, or None if the recipe doesn't ask for it.

    Args:
        score: Scores a model.
        recipe: Gives `evaluate.during`.
        directory: The run's directory; results go to `scores/step-NNNNNN`.
        model: The model in training, sharded or not.
        processor: The model's processor.
        plan_hash: The plan's hash; recipe, plan and step identify the weights of a result.
        world: The ranks, which all score.

    Raises:
        UserError: From the returned function, if memory runs out.
    """
    during = recipe.evaluate.during
    if during is None:
        return None
    if score is None:
        raise ValueError("the recipe has evaluate.during: pass a function that scores")
    content = recipe.model_dump_json(exclude={"evaluate": True, "train": {"trackers", "profile"}})
    training = hashlib.blake2b(f"{content} {plan_hash}".encode(), digest_size=16).hexdigest()

    def score_at(step: int) -> tuple[dict[str, float], Samples]:
        folder = directory / "scores" / f"step-{step:06d}"
        try:
            with world.waiting_long(), preserve_random_state():
                weights = unsharded_copy(model, world.device, recipe.train.lora)
                scores, samples = score(weights, processor, folder, f"{directory} at step {step}", f"{training}-{step}")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"evaluate.during: out of memory on {world.device} while scoring at step {step}: lower "
                "evaluate.batch_size, or leave evaluate.during out and score checkpoints afterwards (mm1 evaluate)"
            ) from None
        return {f"score/{name}": value for name, value in scores.items()}, samples

    return Scoring(during.every, score_at)


def unsharded_copy(
    model: MM1ForConditionalGeneration, device: torch.device, lora: LoraRecipe | None = None
) -> MM1ForConditionalGeneration:
    """Return a model in evaluation mode with the weights of a model in training, which doesn't change.

    The copy has no shards, no compiled blocks and no activation checkpointing. All ranks must call this function; each
    gets the whole model. In a single CPU process the copy shares the memory of the weights. On GPUs it is in bfloat16,
    as in `mm1 evaluate`, and takes 2 bytes per parameter.

    Args:
        model: The model in training, sharded or not.
        device: The model's device.
        lora: The adapters that the model has, and so the copy: merged, they would change the shared weights.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    with torch.device("meta"):
        scored = type(model)(copy.deepcopy(model.config))
        if lora is not None:
            add_adapters(scored, lora)
    scored.load_state_dict(
        {name: full_tensor(tensor.detach()).to(dtype) for name, tensor in model.state_dict().items()}, assign=True
    )
    scored.tie_weights()
    for name, buffer in model.named_buffers():  # for the buffers that are not in the state: positions, frequencies
        module, _, leaf = name.rpartition(".")
        setattr(scored.get_submodule(module), leaf, buffer)
    scored.set_attn_implementation(
        {
            "vision_config": model.config.vision_config._attn_implementation,
            "text_config": model.config.text_config._attn_implementation,
        }
    )
    return scored.requires_grad_(False).eval()


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore the random state of torch, numpy and Python when the block ends."""
    python, array = random.getstate(), np.random.get_state()
    devices: Any = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
