"""One rank of a step, real or rehearsed, watched by the same counters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from mm1.recipe import load_recipe
from mm1.rehearse.step import observe
from mm1.rehearse.world import rehearsed_world
from mm1.train.parallel import join_ranks


def write_seen(file: Path, settings: Sequence[str], rehearsed: tuple[int, int] | None = None) -> None:
    """Write to FILE.RANK what the rank that the environment names does in a step; or, rehearsed, this one of so many.

    Args:
        file: FILE.
        settings: Of the recipe.
        rehearsed: The number of ranks, and the rank; None: the ranks are real.
    """
    recipe = load_recipe("mm1-tiny", settings)
    with rehearsed_world(*rehearsed) if rehearsed else join_ranks("cpu") as world:
        seen = observe(recipe, world, torch.bfloat16)
    Path(f"{file}.{world.rank}").write_text(json.dumps(seen.as_json()))
