"""A rehearsal as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from mm1.plan.shapes import SIZES, TARGET_SHARE
from mm1.rehearse.ledger import KINDS
from mm1.rehearse.rehearsal import Rehearsal


def rehearsal_tables(rehearsal: Rehearsal) -> list[Table]:
    """Return tables of memory, communication, stalls and shapes."""
    tables = [_memory(rehearsal), _traffic(rehearsal), _stalls(rehearsal), _shapes(rehearsal)]
    return [table for table in tables if table.row_count]


def verdict(rehearsal: Rehearsal) -> str:
    """Return in one line whether the GPU has room and the host never waits for it."""
    largest = max(rehearsal.peaks.values())
    room = f"{rehearsal.room / 1e9:.0f} GB of {rehearsal.gpu.name} may be used"
    stalls = sum(rehearsal.seen.stalls.values())
    waits = f"the host waits for the GPU {stalls:,} times in a step" if stalls else "the host never waits for the GPU"
    if stalls and not rehearsal.needless_stalls:
        waits += ", all to learn how many tokens go to which experts"
    if not rehearsal.too_large:
        return f"fits: {largest / 1e9:.1f} GB at most; {room}; {waits}"
    phases = ", ".join(f"{phase} takes {rehearsal.peaks[phase] / 1e9:.1f} GB" for phase in rehearsal.too_large)
    return f"does not fit: {phases}; {room}; {waits}"


def _memory(rehearsal: Rehearsal) -> Table:
    r = rehearsal
    table = Table(
        title=f"{r.recipe.name} on {r.gpus} x {r.gpu.name}: memory of rank {r.rank} in GB",
        caption=f"micro-batches of {r.micro_batch}, {r.seen.micro_batches} per step",
    )
    for name in ("", "weights", "grads", "optim", "gathered", "activ", "peak", "host"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for phase, kinds in r.seen.memory.items():
        host = r.seen.host.get(phase)
        table.add_row(phase, *(_gb(kinds[k]) for k in KINDS), _gb(r.peaks[phase]), "" if host is None else _gb(host))
    return table


def _traffic(rehearsal: Rehearsal) -> Table:
    table = Table(title="collectives of a step")
    for name, justify in (("mesh dimension", "left"), ("collective", "left"), ("calls", "right"), ("sent", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich's literals
    for (dimension, name), calls in sorted(rehearsal.seen.calls.items()):
        table.add_row(dimension, name, f"{calls:,}", _bytes(rehearsal.seen.sent[dimension, name]))
    return table


def _stalls(rehearsal: Rehearsal) -> Table:
    table = Table(title="where the host waits for the GPU in a step")
    table.add_column("times", justify="right")
    table.add_column("why")
    table.add_column("where", overflow="fold")
    for (reason, place), times in sorted(rehearsal.seen.stalls.items(), key=lambda item: -item[1]):
        table.add_row(f"{times:,}", reason, place)
    return table


def _shapes(rehearsal: Rehearsal) -> Table:
    table = Table(
        title="shapes that depend on a batch's contents, before padding",
        caption=f"padded: pictures to at most {SIZES} numbers, targets to multiples of 1/{TARGET_SHARE} of the tokens",
    )
    fills = next(iter(rehearsal.varying.values()), {})
    for name in ("tensor", *fills):
        table.add_column(name)
    for tensor, shapes in rehearsal.varying.items():
        table.add_row(tensor, *("x".join(map(str, shape)) for shape in shapes.values()))
    return table


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size:,.0f} B"
