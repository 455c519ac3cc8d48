"""Checkpoints of experts that are spread in every way: `[torchrun ...] expert_checkpoints.py FOLDER`.

Every checkpoint in the folder is loaded with the experts spread in every way that this number of ranks allows. All
tensors must be those of the first checkpoint. Then one is written in each way.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mm1.model.sharded_start import start_sharded
from mm1.train.checkpoint import Checkpointer
from mm1.train.optimizer import build_optimizer
from mm1.train.parallel import World, join_ranks
from mm1.train.sharding import full_tensor, prepare_model, share_of

from .expert_ranks import CASES, TOKENS, backward, recipe_of, set_up


def checkpointer(spread: int, world: World, folder: Path) -> Checkpointer:
    """Return a model and its optimizer after a step, with the experts spread over so many ranks."""
    case = CASES["plain"] | {"train": {"expert_parallel": spread}}
    recipe = recipe_of(case)
    start = start_sharded(recipe.model, **TOKENS, seed=5, share=share_of(world, recipe.train))
    prepare_model(start.model, world, recipe.train, None)
    start.fill(world.device)
    set_up(start.model, case)
    optimizer = build_optimizer(start.model, recipe.train, 1e-2)
    backward(start.model, [list(range(world.size))], world.size, None)
    optimizer.step()
    optimizer.zero_grad()
    return Checkpointer(folder, start.model, optimizer, world, keep=99)


def whole(own: Checkpointer) -> dict[str, torch.Tensor]:
    return {name: full_tensor(tensor).clone() for name, tensor in own._tensors().items()}


def main() -> None:
    root = Path(sys.argv[1])
    with join_ranks("cpu") as world:
        known = sorted(root.iterdir())
        first = None if not known else torch.load(root.parent / "first.pt")
        for spread in (n for n in (1, 2, 4) if n <= world.size):
            for folder in known:
                own = checkpointer(spread, world, folder)
                state = own.load_latest()
                assert state == {"step": 1}, folder
                for name, tensor in whole(own).items():
                    assert torch.equal(tensor, first[name]), (folder, spread, name)
            own = checkpointer(spread, world, root / f"{len(known):02d}-{world.size}-ranks-{spread}-spread")
            if known:
                Checkpointer(known[0], own.model, own.optimizer, world, keep=9).load_latest()
            elif world.is_first:
                torch.save(whole(own), root.parent / "first.pt")
            own.save({"step": 1}, wait=True)


if __name__ == "__main__":
    main()
