"""Low-rank adapters on a model's linear layers (LoRA, arXiv 2106.09685), by PEFT.

set_trained(model, recipe)  --> model whose parts with adapters are frozen, but for the adapters
adapter_tensors(model)      --> what a run trains: the adapters, and the parts that train whole
write_adapter(...)          --> a folder for PeftModel.from_pretrained
merged(base, ...)           --> a model like any other
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from mm1.errors import UserError
from mm1.model.fresh import stream
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.parts import blocks_of, parts_of
from mm1.model.sparse import SparseBlock
from mm1.recipe import LoraRecipe, Recipe, TrainRecipe

if TYPE_CHECKING:
    from peft import LoraModel

_KEY = "train.lora"
_ADAPTER = re.compile(r"\.(lora_[AB])\.default\.")
"""In the name of an adapter's tensor in a model; the file has no name of an adapter."""
BEGAN_WITH = "base_hash"
"""Key of environment.json: what a run with adapters began with and no checkpoint of it holds, as `drawn_base` says."""
_DRAWN = "drawn-by-name"
"""Stands there for fresh weights, as `mm1.model.fresh` draws them; version 1 of results drew them otherwise."""
_PREFIX = "base_model.model."
"""Begins the names of tensors in PEFT's files."""


def check_peft() -> None:
    """Check that PEFT is installed.

    Raises:
        UserError: If it isn't.
    """
    try:
        importlib.import_module("peft")
    except ImportError:
        raise UserError(f"{_KEY} needs the package peft: run pip install 'mm1[lora]'") from None


def add_adapters(model: MM1ForConditionalGeneration, recipe: LoraRecipe) -> LoraModel:
    """Give a model adapters, in place, and freeze the parts that have them, with embeddings and vocabulary head.

    Other parts stay as they are. Adapters of a model on the meta device have no contents; others begin as PEFT's do.

    Args:
        model: The model, not sharded.
        recipe: Which layers get adapters, and of what size.

    Returns:
        PEFT's hold on the adapters, which can merge them.

    Raises:
        UserError: If PEFT is missing, or a layer does not exist or takes no adapter.
    """
    check_peft()
    from peft import LoraConfig, LoraModel

    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.scale,
        target_modules=_pattern(model, recipe),
        # So that AutoPeftModel finds the class of the base.
        auto_mapping={"base_model_class": type(model).__name__, "parent_library": type(model).__module__},
    )
    trained = {name for name, part in parts_of(model).items() if name not in recipe.parts}
    before = {p: p.requires_grad for name in trained for p in parts_of(model)[name].parameters()}
    # It freezes all that is no adapter.
    tuner = LoraModel(model, config, "default", low_cpu_mem_usage=next(model.parameters()).is_meta)
    for parameter, requires_grad in before.items():
        parameter.requires_grad_(requires_grad)
    return tuner


def set_trained(model: MM1ForConditionalGeneration, recipe: TrainRecipe) -> None:
    """Give a model the adapters of a recipe, and freeze the parts that it doesn't train, in place.

    Args:
        model: The model, not sharded.
        recipe: Gives `lora` and `freeze`.

    Raises:
        UserError: See `add_adapters`.
    """
    if recipe.lora is not None:
        add_adapters(model, recipe.lora)
    for name in recipe.freeze:
        parts_of(model)[name].requires_grad_(False)


def _pattern(model: MM1ForConditionalGeneration, recipe: LoraRecipe) -> str:
    """Return an expression that matches the full names of the layers that get adapters, and no others."""
    names = {id(module): name for name, module in model.named_modules()}
    patterns: list[str] = []
    without: dict[str, dict[str, None]] = {}
    offered: dict[str, None] = {}
    unknown = set(recipe.targets or ())
    for part in recipe.parts:
        blocks = blocks_of(parts_of(model)[part])
        linear = [dict.fromkeys(n for n, m in block.named_modules() if isinstance(m, nn.Linear)) for block in blocks]
        there = {name: None for names_of_block in linear for name in names_of_block}
        chosen = [name for name in there if all(name in names_of_block for names_of_block in linear)]
        if recipe.targets is not None:
            chosen = [name for name in there if any(_is_named(name, target) for target in recipe.targets)]
        for name in chosen:
            _refuse_experts(name, blocks)
        unknown -= {target for target in recipe.targets or () if any(_is_named(name, target) for name in chosen)}
        offered |= there
        if chosen:
            place = names[id(blocks[0])].rpartition(".")[0]
            patterns.append(rf"{re.escape(place)}\.\d+\.({'|'.join(map(re.escape, chosen))})")
        else:
            without[part] = there
    if unknown:
        raise UserError(
            f"{_KEY}.targets: '{min(unknown)}' is no linear layer in the blocks of {' or '.join(recipe.parts)}: take "
            f"some of {_words(offered)}"
        )
    if without:
        lacking, there = next(iter(without.items()))
        raise UserError(
            f"{_KEY}: no layer of {lacking} gets adapters: name some in {_KEY}.targets ({_words(there)}), or leave "
            f"{lacking} out of {_KEY}.parts"
        )
    return "|".join(patterns)


def _refuse_experts(name: str, blocks: list[nn.Module]) -> None:
    """Refuse a layer that some blocks have and others have as experts.

    PEFT's `target_parameters` takes tensors of experts, but adds the product of an adapter to all of them anew in every
    forward pass.
    """
    for block in blocks:
        experts = any(isinstance(module, SparseBlock) for module in block.modules())
        if experts and name not in dict(block.named_modules()):
            raise UserError(
                f"{_KEY}.targets: in the sparse layers of this decoder '{name}' is a tensor of all experts, which "
                f"takes no adapter: leave it out, or leave {_KEY}.targets out"
            )


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _words(names: Mapping[str, None]) -> str:
    return ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names)) or "none"


def adapter_tensors(model: MM1ForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Return what a run with adapters trains: the adapters' tensors, and all of the parts that train whole, by name."""
    whole = tuple(f"{name}." for name in whole_modules(model))
    return {n: t for n, t in model.state_dict().items() if _ADAPTER.search(n) or n.startswith(whole)}


def whole_modules(model: MM1ForConditionalGeneration) -> list[str]:
    """Return the names of the modules that train whole beside adapters."""
    names = {id(module): name for name, module in model.named_modules()}
    return [
        names[id(part)]
        for part in parts_of(model).values()
        if not any(_ADAPTER.search(name) for name, _ in part.named_parameters())
        and any(parameter.requires_grad for parameter in part.parameters())
    ]


def fresh_adapter(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Return the first values of an adapter's tensor: A from PEFT's distribution, B zero, so that nothing changes yet.

    A is uniform between -1 and 1 over the square root of its inputs (PEFT's `kaiming_uniform_` with a = sqrt(5)), drawn
    from the parameter's own random stream (`mm1.model.fresh`).

    Args:
        name: Of the parameter in the model.
        shape: `(rank, inputs)` or `(outputs, rank)`.
        seed: Of the run.
    """
    values = torch.zeros(shape)
    if "lora_A" in name:
        bound = shape[1] ** -0.5
        values.uniform_(-bound, bound, generator=torch.Generator().manual_seed(stream(seed, name)))
    return values


def drawn_base(recipe: Recipe) -> str | None:
    """Return how the fresh weights under a recipe's adapters are drawn, None if there are none: all are read."""
    model, lora = recipe.model, recipe.train.lora
    assert lora is not None
    language_model = model.language_model
    fresh = {
        "vision": model.vision.from_ is None,
        "connector": True,
        "language_model": language_model.from_ is None or language_model.num_experts > 0,
    }
    stay = any(fresh[part] for part in (*lora.parts, *recipe.train.freeze))
    return _DRAWN if model.from_ is None and stay else None


def check_drawn_base(run: Path, recipe: Recipe) -> None:
    """Check that the fresh weights under a run's adapters were drawn as they are today.

    Args:
        run: The run's directory.
        recipe: The run's.

    Raises:
        UserError: If an older version has drawn them.
    """
    drawn = drawn_base(recipe)
    try:
        began = str(json.loads((run / "environment.json").read_text()).get(BEGAN_WITH))
    except (OSError, ValueError):
        began = ""
    if drawn is not None and drawn not in began.split():
        raise UserError(
            f"{run}: an older version of mm1 drew the weights that its adapters are for, from other random numbers: "
            "take that version, or train again in another directory"
        )


def is_adapter(name: str) -> bool:
    """Whether a parameter's name is that of an adapter."""
    return _ADAPTER.search(name) is not None


def base_name(name: str) -> str:
    """Return the name that a parameter has in the model without adapters."""
    return name.replace(".base_layer.", ".")


def merged(
    base: MM1ForConditionalGeneration, recipe: LoraRecipe, tensors: Mapping[str, torch.Tensor]
) -> MM1ForConditionalGeneration:
    """Return the base with trained adapters added to its weights; it is changed in place.

    Args:
        base: The model that training began with.
        recipe: As of `add_adapters`.
        tensors: As of `adapter_tensors`, on the base's device.

    Raises:
        UserError: If the adapters are not finite.
    """
    tuner = add_adapters(base, recipe)
    unexpected = base.load_state_dict(dict(tensors), strict=False).unexpected_keys
    assert not unexpected, unexpected
    try:
        tuner.merge_and_unload(safe_merge=True)
    except ValueError as error:  # the library's, for weights that are not finite
        raise UserError(f"the adapters can't be merged ({error}): start from an earlier step") from None
    return base


def write_adapter(
    model: MM1ForConditionalGeneration,
    tensors: Mapping[str, torch.Tensor],
    base: str,
    revision: str | None,
    folder: Path,
) -> None:
    """Write an adapter as PEFT does: `PeftModel.from_pretrained(base_model, folder)` loads it.

    Parts that train whole are its `modules_to_save`.

    Args:
        model: The model with adapters; its weights are not read.
        tensors: As of `adapter_tensors`, whole.
        base: Folder or Hub id of the model that the adapter is for.
        revision: Of a Hub id.
        folder: The folder to write to; it exists.
    """
    config: Any = model.peft_config["default"]
    written = type(config).from_peft_type(
        **config.to_dict()
        | {
            "base_model_name_or_path": base,
            "revision": revision,
            "inference_mode": True,
            "modules_to_save": whole_modules(model) or None,
        }
    )
    named = {_PREFIX + _ADAPTER.sub(r".\1.", name): tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})
    written.save_pretrained(folder)


def training_words(model: MM1ForConditionalGeneration) -> str:
    """Return what trains and what doesn't, in words, of a model with adapters."""
    said = []
    for part, module in parts_of(model).items():
        adapters = [p.numel() for name, p in module.named_parameters() if is_adapter(name)]
        learning = any(p.requires_grad for p in module.parameters())
        how = f"by adapters of {sum(adapters):,} parameters" if adapters else "whole" if learning else "not at all"
        said.append(f"{part.replace('_', ' ')} {how}")
    return ", ".join(said)
