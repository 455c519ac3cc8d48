"""What a training would do, without doing it: the order of training, and what it takes on this machine.

recipe --> plan (as the training makes it, in a temporary folder) --> budget of one device
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from rich import box
from rich.console import RenderableType
from rich.table import Table

from mm1.devices import choose_device
from mm1.look.plan import compact, plan_table
from mm1.recipe import Recipe
from mm1.scaling.budget import MFU, Budget, make_budget
from mm1.scaling.gpus import GPU
from mm1.train.capabilities import autocast_dtype
from mm1.train.efficiency import peak_flops
from mm1.train.prepare import make_plan
from mm1.train.run_directory import processor_name
from mm1.train.tracking import check_trackers

CPU_MFU = 0.1
"""Assumed share of a CPU's peak that training reaches; the log of a run has the measured one (`mfu`)."""


def dry_run(recipe: Recipe) -> Iterator[RenderableType]:
    """Plan a training as it would be planned, and yield what to print: the plan, then the budget.

    The corpora's indexes are kept; nothing else is written.

    Args:
        recipe: The recipe of the training.

    Raises:
        UserError: Where the training would: a corpus or package is missing, or memory doesn't suffice.
    """
    check_trackers(recipe.train.trackers)
    info = make_plan(recipe)
    yield plan_table(info)
    yield budget_table(machine_budget(recipe, info), info)


def machine_budget(recipe: Recipe, info: Mapping[str, Any]) -> Budget:
    """Return the budget of a training on one device of this machine: the GPU that it would use, or the CPU.

    Args:
        recipe: The recipe.
        info: The content of its plan.json.
    """
    device = choose_device(recipe.train.device, "train.device")
    dtype = autocast_dtype(recipe.train, device)
    peak, _ = peak_flops(device, dtype)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory, mfu = properties.name, float(properties.total_memory), MFU
    else:
        name, memory, mfu = processor_name(), float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), CPU_MFU
    precision = str(dtype or torch.float32).removeprefix("torch.")
    train = recipe.train.model_copy(update={"dtype": precision})
    documents = sum(source["documents"] for source in info["sources"].values())
    return make_budget(
        recipe.model_copy(update={"train": train}),
        GPU(name, peak, memory, link=float("inf"), network=float("inf"), per_node=1),
        1,
        mfu=mfu,
        document_length=max(1, round(info["tokens"] / max(1, documents))),
    )


def budget_table(budget: Budget, info: Mapping[str, Any]) -> Table:
    """Return a table of what a training takes.

    Args:
        budget: Its budget on one device.
        info: The content of its plan.json.
    """
    gpu, work, run = budget.gpu, budget.workload, sum(budget.flops.values()) * budget.workload.steps
    share = budget.compute_seconds * gpu.peak
    mfu = (sum(budget.flops.values()) + budget.recomputed_flops) / share
    caption = f"Estimated for full sequences, at {mfu:.0%} of the peak; without evaluation and checkpoints."
    table = Table(title=f"on this machine: {gpu.name}", title_justify="left", caption=caption, caption_justify="left")
    table.box, table.show_header = box.SIMPLE_HEAD, False
    table.add_column()
    table.add_column()
    table.add_row("precision", budget.recipe.train.dtype)
    table.add_row("steps", f"{work.steps:,}, of {work.sequences:,} sequences; {compact(info['tokens'])} tokens in all")
    table.add_row("FLOPs of the run", f"{run:.3g}")
    table.add_row("memory", f"{budget.memory.total / 1e9:.1f} GB of {gpu.memory / 1e9:.0f} GB")
    table.add_row("micro-batch", f"{budget.layout.micro_batch}{', recomputed' if budget.layout.recompute else ''}")
    table.add_row("step", f"{budget.step_seconds:.3g} s")
    table.add_row("training", _duration(budget.days))
    return table


def _duration(days: float) -> str:
    minutes = 24 * 60 * days
    if minutes < 120:
        return f"{max(1, round(minutes))} min"
    return f"{minutes / 60:.1f} hours" if days < 2 else f"{days:,.0f} days"
