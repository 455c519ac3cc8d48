"""Scores while training goes on: the weights as they are, given to whoever can score them.

How to score is not this package's business: `pretrain` is handed a `Score` (`mm1.evaluate.during` makes one).
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
from mm1.processing.processor import MM1Processor
from mm1.recipe import Recipe
from mm1.train.loop import Scoring
from mm1.train.memory import is_out_of_memory
from mm1.train.parallel import World, whole

Score = Callable[[MM1ForConditionalGeneration, MM1Processor, Path, str, str], dict[str, float]]
"""Takes a whole model in evaluation mode, its processor, the folder for results, the model's name and its hash;
returns scores by name. All ranks call it and share the work."""


def scoring(
    score: Score | None,
    recipe: Recipe,
    directory: Path,
    model: MM1ForConditionalGeneration,
    processor: MM1Processor,
    plan_hash: str,
    world: World,
) -> Scoring | None:
    """Return what the loop needs to score the weights every so many steps, or None if the recipe asks for none.

    Args:
        score: Scores a model.
        recipe: Its `evaluate.during`.
        directory: The run's; results go to `scores/step-NNNNNN`.
        model: The one in training, sharded or not.
        processor: The model's.
        plan_hash: Of the plan; recipe, plan and step say which weights a result is of.
        world: All of its ranks score.

    Raises:
        UserError: By the returned function, if memory runs out.
    """
    during = recipe.evaluate.during
    if during is None:
        return None
    if score is None:
        raise ValueError("the recipe asks for scores during training: hand over a way to score")
    content = recipe.model_dump_json(exclude={"evaluate": True, "train": {"trackers"}})
    training = hashlib.blake2b(f"{content} {plan_hash}".encode(), digest_size=16).hexdigest()

    def at(step: int) -> dict[str, float]:
        folder = directory / "scores" / f"step-{step:06d}"
        try:
            with random_numbers_kept():
                weights = whole_copy(model, world.device)
                found = score(weights, processor, folder, f"{directory} at step {step}", f"{training}-{step}")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"evaluate.during: out of memory on {world.device} while scoring at step {step}: lower "
                "evaluate.batch_size, or score checkpoints afterwards"
            ) from None
        return {f"score/{name}": value for name, value in found.items()}

    return Scoring(during.every, at)


def whole_copy(model: MM1ForConditionalGeneration, device: torch.device) -> MM1ForConditionalGeneration:
    """Return a model in evaluation mode with the weights of one in training, which is left alone.

    Nothing of the training is on it (shards, compiled blocks, recomputed activations). All ranks must ask; each
    gets the whole. On one CPU process it shares the memory of the weights; on GPUs it takes 2 bytes a parameter, since
    it is in bfloat16 there, as `mm1 evaluate` has it.

    Args:
        model: Sharded or not.
        device: The model's.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    with torch.device("meta"):
        scored = type(model)(copy.deepcopy(model.config))
    scored.load_state_dict(
        {name: whole(tensor.detach()).to(dtype) for name, tensor in model.state_dict().items()}, assign=True
    )
    scored.tie_weights()
    for name, buffer in model.named_buffers():  # those that are not part of the state: positions, frequencies
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
def random_numbers_kept() -> Iterator[None]:
    """Leave torch's, numpy's and Python's random numbers as they were."""
    python, array = random.getstate(), np.random.get_state()
    devices: Any = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
