"""One rank of a step, real or rehearsed, watched by the same counters.

torchrun ... one_rank.py FILE SETTING...          writes FILE.RANK
one_rank.py FILE RANKS,RANK SETTING...            the same, rehearsed
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from mm1.recipe import load_recipe
from mm1.rehearse.step import observe
from mm1.rehearse.world import rehearsed_world
from mm1.train.parallel import join_ranks


def main() -> None:
    file, *settings = sys.argv[1:]
    rehearsed = settings.pop(0).split(",") if "=" not in settings[0] else None
    recipe = load_recipe("mm1-tiny", settings)
    with rehearsed_world(*map(int, rehearsed)) if rehearsed else join_ranks("cpu") as world:
        seen = observe(recipe, world, torch.bfloat16)
    Path(f"{file}.{world.rank}").write_text(json.dumps(seen.as_json()))


if __name__ == "__main__":
    main()
