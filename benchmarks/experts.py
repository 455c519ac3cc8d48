"""Sparse blocks: against a dense one of equal active parameters, and over ranks.

    python benchmarks/experts.py block             tokens/s, forward and backward
    python benchmarks/experts.py ranks             the same with experts over 1, 2 and 4 ranks of this machine (gloo)
    python benchmarks/experts.py ... --tiny        in seconds; the figures mean nothing

Ranks of one machine share its cores: the second table shows what dispatch costs, not a speed-up. The bytes are those
that a rank sends in a forward and backward pass, to itself not counted.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.distributed._tools.fake_collectives import collective_ops
from torch.utils._python_dispatch import TorchDispatchMode

from mm1.model.sparse import SparseBlock, draw_experts, sparsify
from mm1.ranks import end_rank
from mm1.recipe import TrainRecipe
from mm1.rehearse.traffic import Traffic
from mm1.train.parallel import join_ranks
from mm1.train.sharding import shard_model
from model import build

EXPERTS, TOP_K = 8, 2


def blocks(hidden: int) -> tuple[nn.Module, nn.Module]:
    """Return a sparse block, and a dense FFN twice as wide as an expert: equal active parameters at top-2."""
    decoder = build(hidden, 1, 512).model.language_model
    wide = build(hidden, 1, 512).config.text_config
    wide.intermediate_size *= TOP_K
    dense = type(decoder)(wide).layers[0].mlp
    sparsify(decoder, build(hidden, 1, 512, moe_num_experts=EXPERTS, moe_every=1).config)
    draw_experts(decoder, wide.initializer_range)
    sparse = decoder.layers[0].mlp
    assert isinstance(sparse, SparseBlock)
    return sparse, dense


def seconds(ffn: nn.Module, states: torch.Tensor) -> float:
    """Return the time of a forward and backward pass."""
    began = time.perf_counter()
    ffn(states).sum().backward()
    taken = time.perf_counter() - began
    ffn.zero_grad()
    return taken


def block(tiny: bool) -> None:
    """Time both in turns."""
    hidden, tokens, turns = (64, 128, 1) if tiny else (512, 4096, 15)
    sparse, dense = blocks(hidden)
    states = torch.randn(1, tokens, hidden)
    times: dict[str, list[float]] = {"sparse": [], "dense": []}
    for turn in range(turns + 2):
        for name, ffn in (("sparse", sparse), ("dense", dense)):
            taken = seconds(ffn, states)
            if turn >= 2:
                times[name].append(taken)
    rates = {name: tokens / float(np.median(values)) for name, values in times.items()}
    print(f"{EXPERTS} experts, {sum(p.numel() for p in dense.parameters()):,} active parameters, {tokens} tokens:")
    for name, rate in rates.items():
        print(f"  {name}: {rate:,.0f} tokens/s")
    print(f"  sparse / dense: {rates['sparse'] / rates['dense']:.2f}")


class _Sent(TorchDispatchMode):
    """Counts what a rank sends."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in collective_ops:
            self.traffic.saw(func, args, kwargs or {}, result, host=False)
        return result


def on_rank(rank: int, size: int, port: int, spread: bool, tiny: bool) -> None:
    """Time the block on one of several ranks; the first prints."""
    import os

    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden, tokens, turns = (64, 128, 1) if tiny else (512, 4096, 7)
    sparse, _ = blocks(hidden)
    model = nn.Sequential(sparse)
    recipe = TrainRecipe(steps=1, warmup_steps=0, batch_size=size, expert_parallel=None if spread else 1)
    with join_ranks("cpu") as world:
        shard_model(model, [[sparse]], world, recipe, None)
        states = torch.randn(1, tokens // size, hidden)
        times = [seconds(model, states) for _ in range(turns + 1)][1:]
        with _Sent() as sent:
            seconds(model, states)
        if world.is_first:
            name = "spread" if spread else "gathered"
            bytes_ = {f"{k[1]}": f"{v / 1e6:.1f} MB" for k, v in sent.traffic.sent.get("", {}).items() if v}
            print(f"  {size} ranks, experts {name}: {tokens / float(np.median(times)):,.0f} tokens/s; sent {bytes_}")
    if size > 1:
        end_rank(0)


def ranks(tiny: bool) -> None:
    """Time the block over 1, 2 and 4 processes with one thread each."""
    for number, (size, spread) in enumerate(((1, True), (2, False), (2, True), (4, False), (4, True))):
        mp.spawn(on_rank, args=(size, 29_700 + number, spread, tiny), nprocs=size)


def main() -> None:
    """Answer one question and name the machine."""
    questions: dict[str, Callable[[bool], None]] = {"block": block, "ranks": ranks}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=questions)
    parser.add_argument("--tiny", action="store_true", help="in seconds; the figures mean nothing")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    questions[arguments.question](arguments.tiny)


if __name__ == "__main__":
    main()
