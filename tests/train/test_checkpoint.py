"""Checkpoints of models whose tensors don't fill the ranks; what is read to load one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import torch
from torch import nn

from mm1.recipe import TrainRecipe
from mm1.train.checkpoint import Checkpointer
from mm1.train.parallel import World, full_tensor, join_ranks, shard_model
from tests.train.forked import on_ranks


class Tied(nn.Module):
    """A table tied to a head, and tensors of one, two and three rows."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(vocabulary, 4), nn.Linear(4, vocabulary, bias=False)
        self.head.weight = self.table.weight
        self.block = nn.Linear(4, 3)
        self.wide = nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.ones(1))
        self.pair = nn.Parameter(torch.ones(2))
        self.register_buffer("steps", torch.zeros(1))
        self.register_buffer("nothing", torch.zeros(0))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.wide(self.block(self.table(ids))) * self.scale * self.pair.sum())


def trained(world: World, vocabulary: int, seed: int, folder: Path) -> tuple[Tied, Checkpointer]:
    """Return a model that has made a step, with its optimizer's state, and what saves both."""
    torch.manual_seed(seed)
    model = Tied(vocabulary)
    shard_model(model, [[model.block], [model.wide]], world, TrainRecipe(), None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.arange(vocabulary)).square().sum().backward()
    optimizer.step()
    return model, Checkpointer(folder, model, optimizer, world, keep=1)


def whole(model: Tied, checkpointer: Checkpointer) -> list[torch.Tensor]:
    """Return all weights and all the optimizer's state, gathered."""
    tensors = [*model.parameters(), *model.buffers()]
    states = (checkpointer.optimizer.state[parameter] for parameter in model.parameters())
    tensors += [value for state in states for value in state.values()]
    return [full_tensor(tensor.detach()) for tensor in tensors]


def save(vocabulary: int, folder: Path, expected: Path) -> None:
    with join_ranks("cpu") as world:
        model, checkpointer = trained(world, vocabulary, 1, folder)
        checkpointer.save({"step": 3}, wait=True)
        tensors = whole(model, checkpointer)
        if world.is_first:
            torch.save(tensors, expected)


def load(vocabulary: int, folder: Path, expected: Path, opened: Path) -> None:
    files: list[str] = []
    open_file = safetensors.safe_open

    def counting(filename: str, *arguments: object, **more: object) -> object:
        files.append(Path(filename).name)
        return open_file(filename, *arguments, **more)  # type: ignore[arg-type]  # passed on as they came

    safetensors.safe_open = counting  # type: ignore[assignment,misc]  # a function in the class's place
    with join_ranks("cpu") as world:
        model, checkpointer = trained(world, vocabulary, 2, folder)
        assert checkpointer.load_latest() == {"step": 3}
        Path(f"{opened}.{world.rank}").write_text(json.dumps(files))
        for ours, theirs in zip(whole(model, checkpointer), torch.load(expected), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("vocabulary", [9, 2])
def test_tied_tables_that_leave_ranks_empty_are_saved_and_loaded(vocabulary: int, tmp_path: Path) -> None:
    """Four ranks hold 3, 3, 3 and 0 of nine rows, and 1, 1, 0 and 0 of two."""
    on_ranks(4, save, vocabulary, tmp_path / "run", tmp_path / "expected")
    for ranks in (1, 2, 4):
        on_ranks(ranks, load, vocabulary, tmp_path / "run", tmp_path / "expected", tmp_path / f"opened-{ranks}")


def test_the_headers_of_a_checkpoint_are_read_once(tmp_path: Path) -> None:
    """By the first rank; each rank opens its own file, and the first one's, which has what is not sharded."""
    on_ranks(4, save, 8, tmp_path / "run", tmp_path / "expected")
    shards = sorted(file.name for file in (tmp_path / "run").rglob("*.safetensors"))
    on_ranks(4, load, 8, tmp_path / "run", tmp_path / "expected", tmp_path / "opened")
    opened = [json.loads((tmp_path / f"opened.{rank}").read_text()) for rank in range(4)]
    assert len(shards) == 4
    assert sorted(opened[0]) == sorted([*shards, shards[0]])
    for rank in (1, 2, 3):
        assert sorted(opened[rank]) == [shards[0], shards[rank]]
