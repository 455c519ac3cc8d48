"""A budget as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from mm1.scaling.budget import LINK_EFFICIENCY, RESERVE, Budget
from mm1.scaling.description_table import short


def budget_table(budget: Budget, price: float | None = None) -> Table:
    """Return a `rich` table of a budget.

    Args:
        budget: The budget.
        price: Of a GPU hour; None leaves the cost out.
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
        "a step", f"{short(tokens)} tokens", f"{work.sequences:,} sequences, {short(round(image_tokens))} of images"
    )
    table.add_section()
    total = sum(b.flops.values())
    for part, title in (("vision", "vision tower"), ("connector", "connector"), ("language_model", "decoder")):
        table.add_row(f"FLOPs a step, {title}", _flops(b.flops[part]), f"{b.flops[part] / total:.1%}")
    if b.recomputed_flops:
        table.add_row("FLOPs a step, computed again", _flops(b.recomputed_flops), f"+{b.recomputed_flops / total:.1%}")
    table.add_row("FLOPs of the run", _flops((total + b.recomputed_flops) * work.steps), "")
    table.add_section()
    table.add_row("layout", _sharding(b), "")
    table.add_row("micro-batch", f"{layout.micro_batch}", f"{layout.micro_batches} a step on each GPU")
    table.add_row("activations", "computed again" if layout.recompute else "kept", "")
    table.add_section()
    for title, size in vars(b.memory).items():
        table.add_row(
            f"{title} per GPU", f"{size / 1e9:.1f} GB", "in place of the two above" if title == "update" else ""
        )
    table.add_row(
        "most at once per GPU", f"{b.memory.total / 1e9:.1f} GB", f"{b.memory.total / b.gpu.memory:.0%} of the memory"
    )
    table.add_section()
    table.add_row("computation of a step", _seconds(b.compute_seconds), "")
    share = b.communication_seconds / b.compute_seconds
    hidden = "behind it" if share <= 1 else "longer than computation: it sets the pace"
    table.add_row("communication of a step", _seconds(b.communication_seconds), f"{share:.0%}, {hidden}")
    table.add_row(
        "tokens a second", f"{tokens / b.step_seconds:,.0f}", f"{tokens / b.step_seconds / b.gpus:,.0f} per GPU"
    )
    table.add_row("model FLOPs utilisation", f"{b.mfu:.1%}", "")
    table.add_row("time", f"{b.days:.1f} days", f"{b.gpu_hours:,.0f} GPU hours")
    if price is not None:
        table.add_row("cost", f"{price * b.gpu_hours:,.0f}", f"at {price:g} a GPU hour")
    return table


def layout_settings(budget: Budget) -> str:
    """Return the options of `mm1 pretrain` that lay training out as the budget has it."""
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
        f"Taken, not measured: utilisation where it is not given as a rate, {LINK_EFFICIENCY:.0%} of the links' stated "
        f"bandwidth, {RESERVE:.0%} of the memory kept free. Stops, evaluation and checkpoints are not in the time."
    )


def _flops(number: float) -> str:
    """Return FLOPs with a unit: 3.21 PFLOP."""
    for unit, size in (("Y", 1e24), ("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12)):
        if number >= size:
            return f"{number / size:.3g} {unit}FLOP"
    return f"{number / 1e9:.3g} GFLOP"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
