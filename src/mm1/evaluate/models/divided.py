"""Divides a model over the ranks that hold it between them, by the library's own plans.

    attention heads, FFN columns, vocabulary   tensor parallelism: a rank has 1 / N
    experts                                    expert parallelism: a rank has 1 / N
    vision tower, connector, norms, routers    whole on every rank

A rank reads its part of the files alone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessor, PretrainedConfig
from transformers.distributed import DistributedConfig

from mm1.errors import UserError
from mm1.evaluate.distributed import Group
from mm1.ranks import local_rank

_HEADS = {"num_attention_heads": "attention heads", "num_key_value_heads": "key-value heads", "num_heads": "heads"}


def division(path: Path | str, config: PretrainedConfig, ranks: int, device: torch.device) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that divide a model; none for one rank.

    Args:
        path: The model's name, for messages.
        config: The model's.
        ranks: How many ranks hold the model between them.
        device: Where this rank is to compute.

    Raises:
        UserError: If the library can't divide the model, over so many ranks, or on such a device.
    """
    if ranks == 1:
        return {}
    text = config.get_text_config()
    if not text.base_model_tp_plan:
        raise UserError(
            f"{path}: transformers can't divide a decoder of type {text.model_type} over ranks: leave ranks_per_model "
            "out"
        )
    experts = getattr(config, "moe_num_experts", 0)
    _check_counts(path, {**_heads(config), **({"experts": experts} if experts else {})}, ranks)
    # The library takes the machine's accelerator and asks nobody.
    found = torch.accelerator.current_accelerator()
    expected = torch.device(found.type, local_rank()) if found else torch.device("cpu")
    if device != expected:
        raise UserError(
            f"device: a model that {ranks} ranks hold between them is computed on {expected} here and not on {device}: "
            "leave the device out"
        )
    by_expert = experts or text.base_model_ep_plan
    return {"distributed_config": DistributedConfig(tp_size=ranks, ep_size=ranks if by_expert else 1)}


def _heads(config: PretrainedConfig) -> dict[str, int]:
    """Return the numbers of heads of all parts that the library divides, by name."""
    parts = {"": config.get_text_config(), "vision tower's ": getattr(config, "vision_config", None)}
    return {
        owner + title: int(count)
        for owner, part in parts.items()
        if getattr(part, "base_model_tp_plan", None)
        for key, title in _HEADS.items()
        if (count := getattr(part, key, None))
    }


def _check_counts(path: Path | str, counts: dict[str, int], ranks: int) -> None:
    wrong = ", ".join(f"{count} {name}" for name, count in counts.items() if count % ranks)
    if not wrong:
        return
    common = math.gcd(*counts.values())
    fitting = [str(number) for number in range(1, common + 1) if common % number == 0]
    raise UserError(
        f"{path}: {ranks} ranks can't hold this model between them, because {wrong} can't be divided by "
        f"{ranks}: set ranks_per_model to {' or '.join(fitting)}"
    )


class FirstRanksChoice(LogitsProcessor):
    """Makes greedy decoding of a group's ranks choose what the first one would: rounding may break a tie differently.

    Args:
        group: The ranks.
    """

    def __init__(self, group: Group) -> None:
        self._group = group

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (B, V) in which the chosen token is the only one."""
        chosen = self._group.first_ranks(scores.argmax(dim=-1))
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0.0)
