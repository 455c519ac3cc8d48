"""Memory of a training step: counts the activations that autograd keeps, without computing anything.

The step runs on fake tensors, which have shapes and dtypes but no contents, and every allocation counts until it is
freed. So the count covers what this code, its libraries and autograd really keep, for every architecture; it is not a
formula for one of them. It doesn't include memory inside kernels (workspaces).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import mm1.model.attention
from mm1.model import MM1ForConditionalGeneration
from mm1.model.attention import NAMES
from mm1.model.borders import Borders
from mm1.model.parts import recompute_layers


def activation_bytes(
    model: MM1ForConditionalGeneration,
    *,
    rows: int,
    length: int,
    images: int,
    target: int,
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    attention: str = "sdpa",
    recompute: bool = False,
    z_loss: float = 0.0,
) -> int:
    """Return the peak bytes of a forward and backward pass besides weights and their gradients.

    Args:
        model: The model, which may be on the meta device; its weights are replaced by fake ones.
        rows: Sequences in the micro-batch.
        length: Tokens per sequence.
        images: Images in all sequences together.
        target: Target tokens in all sequences together.
        dtype: The weights' dtype in the pass: bfloat16 if FSDP's mixed precision casts them.
        autocast: The precision of `torch.autocast`, whose copies of weights count too.
        attention: `eager` keeps all scores; a fused kernel keeps none. `varlen` in half precision counts as the kernel
            of a GPU, all others like `sdpa` on a CPU.
        recompute: Whether layers of tower and decoder keep only their input.
        z_loss: Weight of the squared log-partition; its size doesn't matter.
    """
    half = torch.bfloat16 in (dtype, autocast)
    by_borders = attention in NAMES and half  # one kernel on a GPU; elsewhere documents one by one, as large as sdpa
    fused = attention if attention == "eager" else "varlen" if by_borders else "sdpa"
    model.set_attn_implementation({"text_config": fused, "vision_config": fused})
    if recompute:
        recompute_layers(model)
    tokens, size = model.config.image_seq_length, model.config.vision_config.image_size
    with FakeTensorMode():
        _replace_weights(model, dtype)
        batch: dict[str, Any] = {
            "input_ids": torch.zeros(rows, length, dtype=torch.long),
            "target_positions": torch.zeros(target, dtype=torch.long),
        }
        if images:
            batch["pixel_values"] = torch.empty(images, 3, size, size, dtype=dtype)
            batch["image_positions"] = torch.zeros(images * tokens, dtype=torch.long)
        if by_borders:
            batch["position_ids"] = torch.zeros(rows, length, dtype=torch.long)
            batch |= Borders(torch.zeros(rows + 1, dtype=torch.int32), length).arguments()
        targets = torch.zeros(target, dtype=torch.long)
        ledger = _Ledger([*model.parameters(), *model.buffers()])
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
        with ledger, patch.object(mm1.model.attention, "has_kernel", lambda *_: by_borders):
            with torch.autocast("cpu", autocast) if autocast else nullcontext():
                loss = model(**batch, target_ids=targets, z_loss=z_loss, use_cache=False).loss_sum
            loss.backward()
    return ledger.peak


class _Ledger(TorchDispatchMode):
    """Counts the bytes of the tensors that operations create, until they are freed.

    Args:
        known: Tensors that don't count.
    """

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype == torch.float32:
            # torch computes grouped experts in float32 too, but infers their shape in bfloat16 only.
            low = [torch.empty_like(matrix, dtype=torch.bfloat16) for matrix in args[:2]]
            result = func(*low, *args[2:], **(kwargs or {})).float()
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._enter(tensor.untyped_storage())
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.now -= size


def _drop_gradient(parameter: torch.Tensor) -> None:
    """Drop a gradient at once: it is reduced and sharded, or counted with the weights' gradients."""
    parameter.grad = None


def _replace_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace parameters and buffers by fake ones, in place; shared tensors stay shared."""
    parameters: dict[int, nn.Parameter] = {}
    buffers: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = nn.Parameter(torch.empty(parameter.shape, dtype=dtype))
                module._parameters[name] = parameters.setdefault(id(parameter), fake)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffers.setdefault(id(buffer), torch.empty(buffer.shape, dtype=buffer.dtype))
