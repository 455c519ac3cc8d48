"""AdamW, learning rates and their schedule, as the paper has them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from mm1.recipe import TrainRecipe


def law_learning_rate(non_embedding_parameters: int) -> float:
    """Return the peak learning rate for a decoder: exp(-0.4214 ln N - 0.5535) (paper sec. 3.4).

    Args:
        non_embedding_parameters: N, of the decoder alone, embeddings not counted.
    """
    return math.exp(-0.4214 * math.log(non_embedding_parameters) - 0.5535)


def schedule(step: int, recipe: TrainRecipe) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine (paper appendix).

    Args:
        step: Counted from 0; the first step already learns.
        recipe: Gives `warmup_steps`, `steps` and the share that the cosine ends at.
    """
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    end = recipe.final_learning_rate
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


def build_optimizer(model: nn.Module, recipe: TrainRecipe, peak: float) -> torch.optim.AdamW:
    """Return AdamW with a parameter group for each part that has a learning rate of its own.

    The paper sets the weight decay lambda to 0.1 eta and, as AXLearn does, decouples it from the learning
    rate: a step is `w -= s(t) * (eta * adam + lambda * w)`. torch's AdamW multiplies the decay by the
    learning rate once more, `w -= s(t) * eta * (adam + weight_decay * w)`, so it is given lambda / eta = 0.1.

    Args:
        model: Has parts `vision_tower`, `connector` and `language_model` in its parameters' names.
        recipe: Rates, decay, betas.
        peak: The learning rate of whatever has none of its own.

    Returns:
        The optimizer; every group holds its peak as `peak_lr`.
    """
    rates = {
        "vision_tower": recipe.vision_learning_rate or peak,
        "connector": recipe.connector_learning_rate or peak,
        "language_model": peak,
    }
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((rate for part, rate in rates.items() if f".{part}." in f".{name}"), peak)
            groups.setdefault(rate, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "lr": rate, "peak_lr": rate} for rate, parameters in groups.items()],
        lr=peak,
        betas=recipe.betas,
        eps=recipe.epsilon,
        weight_decay=recipe.weight_decay,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> float:
    """Clip the global gradient norm and return what it was before."""
    limit = math.inf if max_norm is None else max_norm
    return float(torch.nn.utils.clip_grad_norm_(parameters, limit))
