"""Adafactor that waits for nothing on the device, over whole and over sharded parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate


class Adafactor(torch.optim.Adafactor):
    """torch's Adafactor, with its scalars on the device, where torch's reads two norms of every parameter.

    A sharded parameter is gathered, updated and sharded again, one at a time. The state is one row and one column per
    matrix, so every rank holds all of it. An update temporarily needs the memory of the largest parameter and its
    gradient. Every rank computes every update, so more ranks don't speed it up.

    A step is skipped on the device if the attribute `found_inf`, a scalar, is 1, as in torch's fused optimizers.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure, so no loss
        """Make one optimizer step; all ranks must call this."""
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, found_inf)

    def _update(self, parameter: nn.Parameter, group: dict[str, Any], found_inf: torch.Tensor | None) -> None:
        gradient = parameter.grad
        assert gradient is not None  # `step` has checked
        if not isinstance(parameter, DTensor):
            _update(parameter, gradient, self.state[parameter], group, found_inf)
            return
        assert isinstance(gradient, DTensor)
        full = parameter.full_tensor()
        _update(full, gradient.full_tensor(), self.state[parameter], group, found_inf)
        mesh = parameter.device_mesh
        replica = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
        parameter.to_local().copy_(replica.redistribute(placements=parameter.placements).to_local())


def _update(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    state: dict[str, torch.Tensor],
    group: dict[str, Any],
    found_inf: torch.Tensor | None,
) -> None:
    """Update a parameter and its state in place, as torch's `_single_tensor_adafactor` does."""
    if not state:
        state.update(_first_state(gradient))
    skipped = torch.zeros((), dtype=torch.bool, device=parameter.device) if found_inf is None else found_inf.bool()
    lr, weight_decay, (eps1, eps2) = group["lr"], group["weight_decay"], group["eps"]
    eps1 = torch.finfo(parameter.dtype).eps if eps1 is None else eps1
    state["step"] += (~skipped).to(state["step"].device, state["step"].dtype)
    step = state["step"].to(parameter.device).clamp(min=1)
    share = step ** group["beta2_decay"]
    rate = (parameter.norm(2) / parameter.numel() ** 0.5).clamp(min=eps2) * step.rsqrt().clamp(max=lr)
    if weight_decay:
        parameter.mul_(1 - lr * weight_decay * (~skipped).to(parameter.dtype))
    if gradient.ndim > 1:
        for name, dim in (("row_var", -1), ("col_var", -2)):
            mean = torch.norm(gradient, dim=dim, keepdim=True).square_().div_(gradient.size(dim))
            state[name].lerp_(torch.where(skipped, state[name], mean), share.to(mean.dtype))
        estimate = state["row_var"] @ state["col_var"]
        estimate.div_(state["row_var"].mean(dim=-2, keepdim=True).clamp_(min=eps1))
    else:
        square = gradient * gradient
        state["variance"].lerp_(torch.where(skipped, state["variance"], square), share.to(square.dtype))
        estimate = state["variance"].clone()
    update = estimate.clamp_(min=eps1 * eps1).rsqrt_().mul_(gradient)
    clipped = (update.norm(2) / (update.numel() ** 0.5 * group["d"])).clamp(min=1)
    parameter.sub_(update.mul_(rate / clipped).masked_fill_(skipped, 0))


def _first_state(gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the state before the first step, with torch's names and shapes."""
    step = torch.zeros((), dtype=torch.float32, device=gradient.device)
    if gradient.ndim < 2:
        return {"step": step, "variance": torch.zeros_like(gradient)}
    shape = gradient.shape
    return {
        "step": step,
        "row_var": gradient.new_zeros((*shape[:-1], 1)),
        "col_var": gradient.new_zeros((*shape[:-2], 1, shape[-1])),
    }
