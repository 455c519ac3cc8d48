"""A table of a plan's figures, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from mm1.plan.figures import MAX_EPOCHS


def plan_table(info: Mapping[str, Any]) -> Table:
    """Return a table with shares, amounts, epochs, fill and waste by kind and source, and totals and warnings below.

    Args:
        info: The content of plan.json.
    """
    table = Table(title="plan", title_justify="left", caption_justify="left", caption=_caption(info))
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 0, 0, 0), False
    table.add_column("kind, source", overflow="fold", min_width=14)
    columns = ("share", "seqs", "docs", "epochs", "tokens", "target", "images", "fill t/i", "wasted")
    for name in columns:  # fits 80 characters
        table.add_column(name, justify="right", no_wrap=True)
    for kind, total in info["kinds"].items():
        fills = total["fill"], total["fill_images"], total["fill_binding"]
        table.add_row(Text(kind, "bold"), f"{total['obtained']:.1%}", *_cells(total, fills, None), style="bold")
        for name, entry in info["sources"].items():
            if entry["kind"] == kind:
                share = f"{entry['sequences'] / info['sequences']:.1%}"
                fills = entry["fill"]["tokens"], entry["fill"]["images"], entry["fill"]["binding"]
                table.add_row(f"  {name}", share, *_cells(entry, fills, entry["epochs"]))
        table.add_section()
    return table


def _cells(entry: Mapping[str, Any], fills: tuple[float, float, float], epochs: float | None) -> list[str | Text]:
    style = "yellow" if epochs is not None and epochs > MAX_EPOCHS else ""
    return [
        compact(entry["sequences"]),
        compact(entry["documents"]),
        "" if epochs is None else Text(f"{epochs:.2f}", style),
        compact(entry["tokens"]),
        compact(entry["target_tokens"]),
        compact(entry["images"]),
        f"{fills[0]:.0%}/{fills[1]:.0%}",
        compact(entry["wasted_sequences"]),
    ]


def _caption(info: Mapping[str, Any]) -> Text:
    fill = info["fill"]
    lines = [
        f"{info['steps']:,} steps of {info['batch_size']:,} sequences, each of at most {info['sequence_length']:,} "
        f"tokens and {info['images_per_sequence']:,} images: {compact(info['tokens'])} tokens, "
        f"{compact(info['target_tokens'])} of them targets, {compact(info['images'])} images",
        f"fill {fill['tokens']:.1%} of the tokens, {fill['images']:.1%} of the images, {fill['binding']:.1%} of the "
        f"binding limit: {info['wasted_sequences']:,.0f} of {info['sequences']:,} sequences are wasted",
    ]
    lines += [_read(name, entry["read"]) for name, entry in info["sources"].items() if "read" in entry]
    return Text("\n").join([*map(Text, lines), *(Text(warning, "yellow") for warning in info["warnings"])])


def _read(name: str, read: Mapping[str, Any]) -> str:
    """Return how much of a source is read, and where."""
    located = "" if read["located_in"] is None else f" and the files in {read['located_in']}"
    return (
        f"{name}: reads about {decimal(read['bytes'])} ({decimal(read['bytes_per_epoch'])} an epoch), from "
        f"{read['from']}{located}"
    )


def compact(number: float) -> str:
    """Return a number with three digits and a unit: 12.3M."""
    if number < 10_000:
        return f"{number:,.0f}"
    unit, size = next(
        (unit, size) for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)) if number >= size
    )
    return f"{number / size:.3g}{unit}"
