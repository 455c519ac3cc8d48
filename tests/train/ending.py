"""Ends of `mm1` on two ranks, many in one start: `python -m tests.train.ending TIMES FOLDER`.

Prints the exit codes of every pair. The ranks are forked, so that a pair takes a fraction of a second, and end as any
Python program does.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from mm1 import cli
from mm1.train.checkpoint import Checkpointer
from mm1.train.parallel import World, join_ranks
from tests.train.forked import environments

kept: list[World] = []
"""What refers to the ranks' groups until the very end, as a sharded model in a reference cycle does."""


def work(folder: Path) -> None:
    """Join the ranks, save a checkpoint, leave, and have one of gloo's threads be late."""
    atexit.register(lambda: (folder / f"at-exit-{os.environ['RANK']}").touch())
    with join_ranks("cpu") as world:
        model = nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        Checkpointer(folder / "checkpoints", model, optimizer, world, keep=1).save({"step": 1}, wait=True)
    kept.append(world)
    print("left", end="")  # without a new line: it is still to be flushed
    _be_late(world)


def _be_late(world: World) -> None:
    """Do to gloo's thread what a busy machine does: it gives up its tensor while the process already ends."""
    assert world.saving is not None
    sys.setswitchinterval(1000)  # the interpreter's lock stays with this thread until it waits for something
    world.saving.allreduce([torch.ones(8)])
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        pass


def main() -> None:
    """Fork the pairs, one after the other, and wait for each."""
    times, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.optim.AdamW(nn.Linear(2, 2).parameters())  # loads much, which the forks then need not
    cli.app.command(name="work", hidden=True, rich_help_panel="Plan")(work)
    for _ in range(times):
        ranks = []
        for environment in environments(2):
            if not (rank := os.fork()):
                os.environ.update({name: str(value) for name, value in environment.items()})
                sys.argv = ["mm1", "work", str(folder)]
                return cli.main()
            ranks.append(rank)
        print(*(os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks), flush=True)


if __name__ == "__main__":
    main()
