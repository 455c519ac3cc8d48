"""Fresh weights: every parameter from a random stream of its own, seeded by the recipe's seed and the parameter's name.

    model without contents --copy without contents--> draw(name): one parameter --> a whole model, or a rank's rows

So a parameter has the same values in every model that gives it the same name and shape, whatever else the models have:
arms of a study that differ in the connector start from the same decoder. And a rank draws only what it needs.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

Model = TypeVar("Model", bound=nn.Module)
_Rule = Callable[[nn.Module], None]
_Way = tuple[tuple[_Rule, nn.Module], ...]


def stream(seed: int, name: str) -> int:
    """Return the seed of a parameter's own random stream.

    Args:
        seed: Of the recipe.
        name: Of the parameter in the model.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest(), "big")


@contextmanager
def without_contents() -> Iterator[None]:
    """Build models whose parameters are on the meta device, buffers and scalars on the CPU; nothing is drawn."""
    hook = register_module_parameter_registration_hook(_emptied)
    try:
        # Some constructors draw values of their own, which are dropped.
        with no_init_weights(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        hook.remove()


def _emptied(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
    if parameter.is_meta or not parameter.ndim:  # a constructor sets scalars, which no rule draws
        return None
    return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)


def build_fresh(build: Callable[[], Model], seed: int) -> Model:
    """Build a model with fresh weights.

    Args:
        build: Makes it. Parts that exist before keep their weights.
        seed: Of the recipe.
    """
    with without_contents():
        model = build()
    _tie(model)
    weights = FreshWeights(model, seed)
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    model.load_state_dict({name: weights.draw(name) for name in empty}, strict=False, assign=True)
    _tie(model)
    return model


def _tie(model: nn.Module) -> None:
    if isinstance(model, PreTrainedModel):  # which ties weights itself only where it draws them
        model.tie_weights()


class FreshWeights:
    """The fresh weights of a model, each drawn when it is asked for.

    A parameter is drawn by the rules of the library's models, which draw a module's parameters and sometimes those of
    its children: in a copy of the model where this parameter alone has contents.

    Args:
        model: Its parameters to be drawn are on the meta device. It may get contents, shards or adapters afterwards.
        seed: Of the recipe.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
        self._ways, self._seed = dict(_ways(copy.deepcopy(model, cast(Any, shared)))), seed

    @torch.no_grad()
    def draw(self, name: str) -> torch.Tensor:
        """Return the values of a parameter, on the CPU."""
        way, key = self._ways[name], name.rpartition(".")[2]
        own = way[0][1]._parameters
        empty = own[key]
        assert empty is not None
        # What no rule draws shows as nan, and not as what the memory held before.
        own[key] = values = nn.Parameter(torch.full_like(empty, torch.nan, device="cpu"))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream(self._seed, name))
            for rule, module in way:
                rule(module)
        own[key] = empty
        return values.detach()


def _ways(
    module: nn.Module, rule: _Rule | None = None, outer: _Way = (), prefix: str = ""
) -> Iterator[tuple[str, _Way]]:
    """Yield the parameters' names and the modules around each, the innermost first, with the rules that draw them.

    As in the library a module's rule is that of the innermost of its models; outside of these it is torch's own.
    """
    if isinstance(module, PreTrainedModel):
        rule = module._init_weights
    way = ((rule or _reset, module), *outer)
    for name in module._parameters:
        yield prefix + name, way
    for name, child in module.named_children():
        yield from _ways(child, rule, way, f"{prefix}{name}.")


def _reset(module: nn.Module) -> None:
    reset: Any = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
