"""AdamW and Adafactor, learning rates and their schedule, as in the paper."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from mm1.recipe import TrainRecipe
from mm1.train.adafactor import Adafactor
from mm1.train.sharding import full_tensor, mesh_of

_PARTS = {
    "vision_tower": "vision",
    "connector": "connector",
    "language_model": "language_model",
    "vision_model": "vision",  # of an encoder
    "visual_projection": "vision",
    "text_model": "text",
    "text_projection": "text",
    "temperature": "temperature",
    "head": "head",
}
_FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices on which torch has one kernel for all of AdamW."""


def schedule(step: int, recipe: TrainRecipe) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine (paper appendix).

    Args:
        step: Counted from 0; the first step has a learning rate above 0.
        recipe: Gives `warmup_steps`, `steps` and the share at which the cosine ends.
    """
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    end = recipe.final_learning_rate
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


def build_optimizer(model: nn.Module, recipe: TrainRecipe, peak: float) -> torch.optim.Optimizer:
    """Return AdamW or Adafactor, with one parameter group for each learning rate, weight decay and mesh of ranks.

    The paper sets the weight decay lambda to 0.1 eta and, as AXLearn does, decouples it from the learning
    rate: a step is `w -= s(t) * (eta * adam + lambda * w)`. torch's optimizers multiply the decay by the
    learning rate once more, `w -= s(t) * eta * (adam + weight_decay * w)`, so they get lambda / eta = 0.1.

    Args:
        model: The model; its parameters' names contain `vision_tower`, `connector` and `language_model`. Frozen
            parameters are left out.
        recipe: Gives rates, decay and betas.
        peak: The learning rate of parts without a separate one.

    Returns:
        The optimizer; every group has its peak learning rate as `peak_lr`.
    """
    rates = {
        "vision_tower": recipe.vision_learning_rate or peak,
        "connector": recipe.connector_learning_rate or peak,
        "language_model": peak,
    }
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    groups: dict[tuple[float, float, DeviceMesh | None], list[nn.Parameter]] = {}  # torch's kernels take one mesh
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((rate for part, rate in rates.items() if f".{part}." in f".{name}"), peak)
            decays = recipe.decay_everything or (parameter.ndim > 1 and id(parameter) not in embeddings)
            decay = recipe.weight_decay if decays else 0.0
            groups.setdefault((rate, decay, mesh_of(parameter)), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay, _), parameters in groups.items()
    ]
    if recipe.optimizer == "adafactor":
        return Adafactor(settings, lr=peak)
    fused = all(parameter.device.type in _FUSED for parameter in model.parameters())
    return torch.optim.AdamW(settings, lr=peak, betas=recipe.betas, eps=recipe.epsilon, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


def clip_gradients(model: nn.Module, max_norm: float | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Clip the global gradient norm; nothing is read back from the device.

    Returns:
        The norm before clipping, and the norm of each part of the model (`vision`, `connector`, `language_model`), as
        scalars on the gradients' device.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = next((short for long, short in _PARTS.items() if f".{long}." in f".{name}"), "language_model")
            parts.setdefault(part, []).append(parameter.grad)
    norms = {part: _norm(gradients) for part, gradients in parts.items()}
    total = torch.stack(list(norms.values())).norm()
    if max_norm is not None:
        for parameters in _by_mesh(model.parameters()):
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, total)
    return total, norms


def _norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Return the norm of gradients, which may be sharded over different meshes."""
    norms = [full_tensor(torch.nn.utils.get_total_norm(group)) for group in _by_mesh(gradients)]
    return torch.stack(norms).norm() if len(norms) > 1 else norms[0]


def _by_mesh(tensors: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Return the tensors of each mesh of ranks together; torch's functions on lists take one mesh."""
    groups: dict[DeviceMesh | None, list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(mesh_of(tensor), []).append(tensor)
    return list(groups.values())


def step_if_finite(optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> None:
    """Make an optimizer step unless the gradients are infinite or undefined.

    The fused AdamW and Adafactor decide on the device, as under torch's GradScaler, so nothing waits for it. Where
    AdamW has no fused kernel, the norm is read.

    Args:
        optimizer: The optimizer; weights and state stay as they are if the step is skipped.
        norm: Scalar, the norm of all gradients.
    """
    if optimizer.defaults.get("fused") or isinstance(optimizer, Adafactor):
        # They take the flag from this attribute, which torch does not declare.
        optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf  # type: ignore[attr-defined]  # as above
    elif norm.isfinite():
        optimizer.step()
