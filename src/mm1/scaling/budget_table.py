"""A budget as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from mm1.scaling.budget import LINK_EFFICIENCY, RESERVE, Budget
from mm1.scaling.description_table import short


def budget_table(budget: Budget, price: float | None = None) -> Table:
    """Return a `rich` table of a budget.

    Args:
        budget: The budget.
        price: The price of a GPU hour; None leaves the cost out.
    """
    b, layout, work = budget, budget.layout, budget.workload
    table = Table(title=f"{b.recipe.name} on {b.gpus} x {b.gpu.name}", show_header=False, caption=_caption())
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    tokens = work.sequences * work.length
    image_tokens = tokens - work.sequences * work.target_tokens
    table.add_row("steps", f"{work.steps:,}", f"{short(work.tokens)} tokens")
    table.add_row(
        "per step",
        f"{short(tokens)} tokens",
        f"{work.sequences:,} sequences, {short(round(image_tokens))} image tokens",
    )
    table.add_section()
    total = sum(b.flops.values())
    for part, title in (("vision", "vision tower"), ("connector", "connector"), ("language_model", "decoder")):
        table.add_row(f"FLOPs per step, {title}", _flops(b.flops[part]), f"{b.flops[part] / total:.1%}")
    if b.recomputed_flops:
        table.add_row("FLOPs per step, recomputed", _flops(b.recomputed_flops), f"+{b.recomputed_flops / total:.1%}")
    table.add_row("FLOPs of the run", _flops((total + b.recomputed_flops) * work.steps), "")
    table.add_section()
    table.add_row("layout", _sharding(b), "")
    table.add_row("micro-batch", f"{layout.micro_batch}", f"{layout.micro_batches} per step on each GPU")
    table.add_row("activations", "recomputed" if layout.recompute else "kept", "")
    table.add_section()
    for title, size in vars(b.memory).items():
        table.add_row(
            f"{title} per GPU", f"{size / 1e9:.1f} GB", "instead of the two above" if title == "update" else ""
        )
    table.add_row(
        "peak per GPU", f"{b.memory.total / 1e9:.1f} GB", f"{b.memory.total / b.gpu.memory:.0%} of the memory"
    )
    table.add_section()
    table.add_row("computation per step", _seconds(b.compute_seconds), "")
    share = b.communication_seconds / b.compute_seconds
    limit = "hidden behind computation" if share <= 1 else "of computation: it limits the speed"
    table.add_row("communication per step", _seconds(b.communication_seconds), f"{share:.0%} {limit}")
    table.add_row(
        "tokens per second", f"{tokens / b.step_seconds:,.0f}", f"{tokens / b.step_seconds / b.gpus:,.0f} per GPU"
    )
    table.add_row("model FLOPs utilisation", f"{b.mfu:.1%}", "")
    table.add_row("time", f"{b.days:.1f} days", f"{b.gpu_hours:,.0f} GPU hours")
    if price is not None:
        table.add_row("cost", f"{price * b.gpu_hours:,.0f}", f"at {price:g} per GPU hour")
    return table


def layout_settings(budget: Budget) -> str:
    """Return the options of `mm1 pretrain` that set the budget's layout."""
    layout = budget.layout
    settings = {
        "micro_batch_size": layout.micro_batch,
        "replicas": layout.replicas,
        "activation_checkpointing": str(layout.recompute).lower(),
    }
    return " ".join(f"--set train.{key}={value}" for key, value in settings.items())


def _sharding(budget: Budget) -> str:
    layout = budget.layout
    if budget.gpus == 1:
        return "one GPU"
    return f"HSDP, {layout.replicas} x {layout.shard}" if layout.replicas > 1 else f"FSDP over {layout.shard}"


def _caption() -> str:
    return (
        f"Assumed, not measured: the utilisation (unless a speed is given), {LINK_EFFICIENCY:.0%} of the links' stated "
        f"bandwidth, {RESERVE:.0%} of the memory kept free. The time excludes stops, evaluation and checkpoints."
    )


def _flops(number: float) -> str:
    """Return FLOPs with a unit: 3.21 PFLOP."""
    for unit, size in (("Y", 1e24), ("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12)):
        if number >= size:
            return f"{number / size:.3g} {unit}FLOP"
    return f"{number / 1e9:.3g} GFLOP"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
