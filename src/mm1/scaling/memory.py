"""Memory of a training step: activations as autograd keeps them, counted without computing anything.

The step is run on fake tensors, which have shapes and dtypes and no contents, and every allocation is counted
from when it is made until it is let go. So it is what this code, its library and autograd keep, whatever the
architecture, and not a formula for one of them. What lies inside kernels (workspaces) is not seen.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mm1.model import MM1ForConditionalGeneration


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
) -> int:
    """Return the most that a forward and backward pass holds at once besides weights and their gradients.

    Args:
        model: Its shapes count; it may be on the meta device, and its weights are replaced by fake ones.
        rows: Sequences of the micro-batch.
        length: Tokens of each.
        images: Images of all rows together.
        target: Target tokens of all rows together.
        dtype: Of the weights that the pass sees: bfloat16 where FSDP's mixed precision casts them.
        autocast: The precision of `torch.autocast`, whose copies of weights count too.
        attention: `eager` keeps all scores; any fused kernel keeps none of them and counts as `sdpa` does on a CPU.
        recompute: Layers of tower and decoder keep their input alone.
    """
    fused = attention if attention == "eager" else "sdpa"
    model.set_attn_implementation({"text_config": fused, "vision_config": fused})
    if recompute:
        with warnings.catch_warnings():  # newer versions of the library have another name for it too
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable()
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
        targets = torch.zeros(target, dtype=torch.long)
        ledger = _Ledger([*model.parameters(), *model.buffers()])
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
        with ledger:
            with torch.autocast("cpu", autocast) if autocast else nullcontext():
                logits = model(**batch, use_cache=False).logits
                loss = F.cross_entropy(logits.float(), targets, reduction="sum")
                del logits
            loss.backward()
    return ledger.peak


class _Ledger(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, while they live.

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
            # torch computes grouped experts in float32 too, but knows their shape in bfloat16 alone.
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
    """Forget a gradient as soon as it is there: it is reduced and sharded, or counted with the weights' gradients."""
    parameter.grad = None


def _replace_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace parameters and buffers by fake ones, in place; what was one tensor stays one."""
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
