"""What of its recipe a run may change while it exists: keys that don't change its batches or results, but for rounding.

RUN/recipe.yaml         the newest recipe
RUN/environment.json    `changes`: what was changed, and after which step
                        `fixed_keys`: which of these keys this run can't change, and why
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from torch import nn

from mm1.errors import UserError, in_one_line
from mm1.files import write_json
from mm1.model.checkpoint import checkpoints
from mm1.model.sparse import SparseBlock
from mm1.progress import console
from mm1.recipe import RunRecipe

MICRO_BATCH = "train.micro_batch_size"
_ATTENTION = ("model.vision.attention", "model.language_model.attention", "model.text.attention")
CHANGEABLE_KEYS = (
    "name",
    "evaluate",
    "data.workers",
    "objective.local_loss",
    *_ATTENTION,
    MICRO_BATCH,
    "train.device",
    "train.compile",
    "train.activation_checkpointing",
    "train.replicas",
    "train.expert_parallel",
    "train.reshard_after_forward",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.log_every",
    "train.trackers",
    "train.max_bad_steps",
    "train.profile",
)
"""Keys, or sections, that may change in an existing run, since they affect neither its batches nor its results."""

ENVIRONMENT = "environment.json"
_ROUTERS = "the routers' losses are means over a micro-batch"
_DROPOUT = ("attention_dropout", "dropout", "dropout_p", "drop_prob", "layerdrop")
"""Names under which modules of transformers keep the probability of what they drop."""


def fixed_keys(model: nn.Module) -> dict[str, str]:
    """Return the changeable keys that affect the results of this model, each with the reason.

    Args:
        model: The model that is trained.
    """
    fixed: dict[str, str] = {}
    modules = list(model.modules())
    if any(_drops(module) for module in modules):
        reason = "the random numbers of the model's dropout depend on it"
        fixed |= dict.fromkeys((MICRO_BATCH, *_ATTENTION, "train.device", "train.compile"), reason)
    if any(isinstance(module, SparseBlock) for module in modules):
        fixed[MICRO_BATCH] = _ROUTERS
    return fixed


def _drops(module: nn.Module) -> bool:
    if isinstance(module, nn.Dropout):
        return module.p > 0
    values = (getattr(module, name, None) for name in _DROPOUT)
    return any(isinstance(value, float) and value > 0 for value in values)


def check_changes(directory: Path, recipe: RunRecipe) -> dict[str, list[Any]]:
    """Return what differs between an existing run's recipe and another that it may take: key, value there, value now.

    Args:
        directory: The run's directory, with its recipe.yaml.
        recipe: The resolved recipe that is to be the newest.

    Raises:
        UserError: If a key differs that would change batches or results (the message names the keys), or the recipe
            there is damaged.
    """
    before, now = _written_today(directory / "recipe.yaml", recipe), yaml.safe_load(recipe.to_yaml())
    flat_before, flat_now = flatten(before), flatten(now)
    differing = sorted(k for k in flat_before.keys() | flat_now.keys() if flat_before.get(k) != flat_now.get(k))
    fixed = _fixed_in(directory, flat_before) if latest_step(directory) else {}
    refused = [key for key in differing if (free := _changeable(key)) is None or free in fixed]
    if refused:
        shown = ", ".join(f"{k} ({flat_before.get(k)!r} there, {flat_now.get(k)!r} now)" for k in refused[:8])
        more = f" and {len(refused) - 8} more" if len(refused) > 8 else ""
        reasons = {key: why for key, why in fixed.items() if key in map(_changeable, refused)}
        why = "".join(f"; {key} is fixed because {reason}" for key, reason in reasons.items())
        raise UserError(
            f"{directory}: the directory has a run of another recipe; these keys differ: {shown}{more}{why}: choose "
            "another directory with --to, or remove this one"
        )
    names = dict.fromkeys(re.sub(r"\.\d+(\..*)?$", "", key) for key in differing)  # a list changes as a whole
    return {name: [_value(content, name) for content in (before, now)] for name in names}


def _written_today(file: Path, recipe: RunRecipe) -> dict[str, Any]:
    """Return the content of a run's recipe with the keys that came after it, at their defaults.

    Raises:
        UserError: If it is damaged.
    """
    try:
        content = yaml.safe_load(file.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(file, in_one_line(error)) from None
    if not isinstance(content, dict):
        raise _damaged(file, "it has no keys")
    try:
        return yaml.safe_load(type(recipe).model_validate(content).to_yaml())
    except ValidationError:  # of the other kind of recipe, or with a key that is gone: they differ, which is then said
        return content


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file}: the run's recipe is damaged ({reason}): restore it, or choose another directory with --to"
    )


def record_changes(directory: Path, changes: dict[str, list[Any]]) -> None:
    """Append changes to a run's environment.json, with the step that they come after, and print them.

    What changes before the first checkpoint is not recorded: training begins anew.

    Args:
        directory: The run's directory.
        changes: What `check_changes` returns.
    """
    step = latest_step(directory)
    if not changes or not step:
        return
    content = read_if_there(directory)
    entry = {"step": step, "keys": changes}
    recorded = content.get("changes", [])
    if recorded[-1:] != [entry]:  # else it was recorded, and the process ended before it wrote the recipe
        write_json(directory / ENVIRONMENT, {**content, "changes": [*recorded, entry]})
    for key, (before, now) in changes.items():
        if isinstance(before, dict | list) or isinstance(now, dict | list):
            console.print(f"{key} changes after step {step:,}")
        else:
            console.print(f"{key} changes after step {step:,}: {before} before, {now} now")


def _fixed_in(directory: Path, recipe: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the fixed keys of a run, as its environment.json or, before there were any there, its recipe says."""
    content = read_if_there(directory)
    if "fixed_keys" in content:
        fixed: dict[str, str] = content["fixed_keys"]
        return fixed
    return {MICRO_BATCH: _ROUTERS} if recipe.get("model.language_model.num_experts") else {}


def latest_step(directory: Path) -> int:
    """Return the step of a run's latest checkpoint, 0 if there is none."""
    saved = checkpoints(directory / "checkpoints")
    return int(saved[-1].name.removeprefix("step-")) if saved else 0


def begun_dtype(directory: Path) -> str | None:
    """Return the precision that a run's checkpoints were trained in; None if there are none, or nothing says."""
    return read_if_there(directory).get("dtype") if latest_step(directory) else None


def read_if_there(directory: Path) -> dict[str, Any]:
    """Return the content of a run's environment.json, nothing if it is missing or damaged."""
    try:
        content = json.loads((directory / ENVIRONMENT).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings and lists as one mapping with dotted keys."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    flat: dict[str, Any] = {}
    for key, value in items:
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict | list) else {name: value})
    return flat


def _changeable(key: str) -> str | None:
    """Return the changeable key or section that a dotted key belongs to."""
    return next((free for free in CHANGEABLE_KEYS if key == free or key.startswith(f"{free}.")), None)


def _value(content: Any, name: str) -> Any:
    for key in name.split("."):
        content = content.get(key) if isinstance(content, dict) else None
    return content
