"""Fresh weights of a model that no process holds whole.

The weights of a model are drawn twice: by torch when a module is made, then by the model's own rule. Here both happen
as always, in the same order and from the same random numbers. But a parameter exists only while it is drawn: after that
its part is kept, and it lives on the meta device. So the weights equal those of a model that is built whole.

    with FreshWeights(keep, draw=True) as fresh:
        model = MM1ForConditionalGeneration(config)      # all parameters on the meta device, buffers on the CPU
    fresh.part(parameter)                                # what `keep` returned for its values
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.initialization import TORCH_INIT_FUNCTIONS, no_init_weights

Keep = Callable[[torch.Tensor, nn.Module], torch.Tensor]

_active: FreshWeights | None = None


def draws(parameter: torch.Tensor) -> bool:
    """Whether drawing a parameter has an effect: it has contents, or its part is kept here."""
    return not parameter.is_meta or _active is not None


class FreshWeights:
    """A context in which models are built on the meta device and parts of their fresh weights are kept.

    Args:
        keep: Returns the part to keep of a whole parameter, as a tensor of its own, and takes the module that the
            parameter belongs to.
        draw: Whether weights are drawn; False: only the shapes are needed, since a checkpoint is loaded.
    """

    def __init__(self, keep: Keep, draw: bool) -> None:
        self._keep, self._draw = keep, draw
        self._parts, self._owners = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()
        self._stack = ExitStack()

    def __enter__(self) -> FreshWeights:
        global _active
        hook = register_module_module_registration_hook(lambda parent, name, child: self._take(child))
        self._stack.callback(hook.remove)
        self._stack.enter_context(_Redraws(self._parts, self._keep_of) if self._draw else no_init_weights())
        _active = self if self._draw else None
        return self

    def __exit__(self, *error: object) -> None:
        global _active
        _active = None
        self._stack.close()

    def part(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """Return the kept part of a parameter, once; None if there is none."""
        part: torch.Tensor | None = self._parts.pop(parameter, None)
        return part

    def _take(self, module: nn.Module) -> None:
        """Keep the parts of a new module's parameters, which go to the meta device."""
        for child in module.modules():
            for name, parameter in child._parameters.items():
                if parameter is None or parameter.is_meta:
                    continue
                empty = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
                child._parameters[name] = empty
                if self._draw:
                    self._owners[empty] = child
                    self._parts[empty] = self._keep(parameter.detach(), child)

    def _keep_of(self, parameter: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self._keep(values, self._owners[parameter])


class _Redraws(TorchDispatchMode):
    """Runs what writes into a parameter without contents on real values, and keeps its part.

    One parameter at a time has values: they are kept when the next one is written.
    """

    def __init__(
        self, parts: WeakTensorKeyDictionary, keep: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self._parts, self._keep = parts, keep
        self._parameter: torch.Tensor | None = None
        self._values = WeakTensorKeyDictionary()  # the parameter and views of it -> their values
        self._written = False

    def __enter__(self) -> _Redraws:
        # Some of torch's functions return at once for a tensor without contents.
        self._functions = patch.dict(
            TORCH_INIT_FUNCTIONS, {name: self._on_values(function) for name, function in TORCH_INIT_FUNCTIONS.items()}
        )
        self._functions.start()
        entered: _Redraws = super().__enter__()
        return entered

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._functions.stop()
        self._finish()

    def _on_values(self, function: Any) -> Callable[..., Any]:
        def run(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if self._begin(tensor):
                self._written = True
            function(self._value(tensor), *args, **kwargs)
            return tensor

        return run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not (args and isinstance(args[0], torch.Tensor) and self._begin(args[0])):
            return func(*args, **kwargs)
        values = func(*tree_map(self._value, args), **tree_map(self._value, kwargs))
        if func._schema.is_mutable:
            self._written = True
            return args[0]
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            self._values[result] = values
        return result

    def _begin(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is a parameter without contents, or a view of one; give it values."""
        if tensor in self._values:
            return True
        if tensor not in self._parts:
            return False
        self._finish()
        self._parameter = tensor
        self._values[tensor] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return True

    def _finish(self) -> None:
        if self._parameter is not None and self._written:
            self._parts[self._parameter] = self._keep(self._parameter, self._values[self._parameter])
        self._parameter, self._written = None, False
        self._values.clear()

    def _value(self, argument: Any) -> Any:
        return self._values.get(argument, argument) if isinstance(argument, torch.Tensor) else argument
