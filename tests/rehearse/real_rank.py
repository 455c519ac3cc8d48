"""One rank of a real step, watched as a rehearsal is: `torchrun ... real_rank.py FOLDER SETTING...`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from mm1.model.shape import recipe_config, vocabulary_size
from mm1.recipe import load_recipe
from mm1.rehearse.step import observe
from mm1.train.parallel import join_ranks


def main() -> None:
    folder, *settings = sys.argv[1:]
    recipe = load_recipe("mm1-tiny", settings)
    config = recipe_config(recipe.model, vocabulary_size(recipe))
    with join_ranks("cpu") as world:
        seen = observe(recipe, config, world, torch.bfloat16)
    (Path(folder) / f"{world.rank}.json").write_text(json.dumps(seen.as_json()))


if __name__ == "__main__":
    main()
