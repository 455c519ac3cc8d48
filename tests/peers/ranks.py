"""Runs the library's distributed tests on CPUs, as processes of a gloo group."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import AutoModelForImageTextToText

import mm1  # noqa: F401  (a rank has to know MM1)
from tests.peers.library import PACKAGE, common


@dataclass(frozen=True)
class _Named:
    """A function by its module and name: a new process can't unpickle one of the tests before they are importable."""

    module: str
    name: str

    @classmethod
    def of(cls, function: Any) -> _Named:
        return cls(function.__module__, function.__qualname__)

    def find(self) -> Any:
        return getattr(importlib.import_module(self.module), self.name)


def start_ranks(function: Callable[..., None], args: tuple[Any, ...] = (), nprocs: int = 2) -> None:
    """Call `function(rank, *args)` in as many processes; the first error is raised here.

    They are forked from a process that has imported the tests: importing takes longer than most tests do.
    """
    ours = [_Named.of(a) if isinstance(a, types.FunctionType) and a.__module__.startswith(PACKAGE) else a for a in args]
    mp.set_forkserver_preload(["tests.peers.test_parallel"])
    mp.start_processes(_rank, (pickle.dumps((_Named.of(function), ours)),), nprocs=nprocs, start_method="forkserver")


def run_distributed(world_size: int, **_: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for a function `f(rank, ...)` that runs it in every process of a group."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any, **kwargs: Any) -> None:
            store = dist.TCPStore("localhost", 0, world_size=None, is_master=True, wait_for_workers=False)
            start_ranks(_in_group, (world_size, store.port, _Named.of(function), args, kwargs), world_size)

        return run

    return decorate


def open_to_all_models() -> None:
    """Let the distributed tests run for a model that is not on the library's own lists."""
    common("test_tensor_parallel_mixin").TP_DISTRIBUTED_TEST_MODEL_TYPES = None
    common("test_expert_parallel_mixin").EP_DISTRIBUTED_TEST_MODEL_TYPES = None
    fsdp = common("test_fsdp_mixin")
    fsdp.FSDP_DISTRIBUTED_TEST_MODEL_TYPES = None
    fsdp._get_available_fsdp_workers = lambda: 4  # processes, which may share a core
    # The tests look for models of text alone.
    fsdp.AutoModelForCausalLM = AutoModelForImageTextToText
    if fsdp._run_training_steps is not train_with_pictures:
        fsdp.train_on_text, fsdp._run_training_steps = fsdp._run_training_steps, train_with_pictures


def train_with_pictures(
    model: Any, optimizer: Any, batches: Any, *, track_grad_norms: bool = True
) -> tuple[list[float], list[float]]:
    """Take one step per batch, every row with a picture at its beginning; return losses and gradient norms.

    In place of the mixin's steps over text alone. Those give a vision tower no gradient, and its optimizer's state
    then has no entries to be saved and read again.
    """
    config = getattr(model, "module", model).config
    side, tokens = config.vision_config.image_size, config.image_seq_length
    losses: list[float] = []
    norms: list[float] = []
    for input_ids, labels in batches:
        ids = input_ids.masked_fill(input_ids == config.image_token_id, 1)
        ids[:, :tokens] = config.image_token_id
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randn(len(ids), 3, side, side, generator=generator).to(next(model.parameters()).dtype)
        optimizer.zero_grad()
        loss = model(input_ids=ids, pixel_values=pictures, labels=labels, use_cache=False).loss
        loss.backward()
        if track_grad_norms:
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=float("inf")).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def experts_on_two_axes(rank: int, *args: Any) -> None:
    """Run the library's test of FSDP with expert parallelism, all of it over text alone as half of it is."""
    fsdp = common("test_fsdp_mixin")
    fsdp._run_training_steps = fsdp.train_on_text
    fsdp._test_fsdp2_expert_parallel_2d_vs_ddp_impl(rank, *args)


def _rank(rank: int, content: bytes) -> None:
    open_to_all_models()
    torch.set_num_threads(1)
    # A rank that fails leaves the others waiting: for a minute, not for the default half hour.
    dist.init_process_group = functools.partial(dist.init_process_group, timeout=timedelta(seconds=60))
    function, args = pickle.loads(content)
    function.find()(rank, *(a.find() if isinstance(a, _Named) else a for a in args))


def _in_group(
    rank: int, world: int, port: int, function: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ.update(places | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)})
    store = dist.TCPStore("localhost", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    try:
        function(rank, *args, **kwargs)
    finally:
        dist.destroy_process_group()
