"""What a plan comes to, per kind and source: the figures of plan.json and the table that a person decides by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from mm1.recipe import DataRecipe

if TYPE_CHECKING:
    from mm1.data.plan import Source, Totals

MAX_EPOCHS = 4
"""A source repeated more often is warned about. Up to four epochs repeated tokens are worth nearly as much as
new ones; then their worth falls, to nothing in the end ("Scaling Data-Constrained Language Models", arXiv
2305.16264, abstract)."""

_SUMS = ("sequences", "documents", "tokens", "learned_tokens", "images", "wasted_sequences")


def plan_figures(sources: Sequence[Source], totals: Sequence[Totals], recipe: DataRecipe) -> dict[str, Any]:
    """Return the figures that go into plan.json.

    Args:
        sources: In the plan's order.
        totals: What is taken from each.
        recipe: Limits and weights.

    Returns:
        `tokens`, `learned_tokens`, `images`, `wasted_sequences`, `fill` of the whole; the same and more per kind
        (`kinds`) and source (`sources`); `warnings`. The fill is the mean share of the tokens and of the
        images that a sequence could hold; `binding` is that of the limit which is reached first, source by source. What
        it lacks to one, in sequences, is what packing wastes.
    """
    length = recipe.sequence_length
    by_source: dict[str, dict[str, Any]] = {}
    for source, total in zip(sources, totals, strict=True):
        fill = _fill(total.tokens, total.images, total.sequences, length, recipe.max_images(source.kind))
        by_source[source.name] = {
            "kind": source.kind,
            **vars(total),
            "epochs": round(total.documents / len(source), 3),
            "documents_per_epoch": len(source),
            "fill": fill,
            "wasted_sequences": round(total.sequences * (1 - fill["binding"]), 1),
        }
    sequences = sum(total.sequences for total in totals)
    weights = {kind: mix.weight for kind, mix in recipe.mixture.items() if mix.weight > 0}
    by_kind = {}
    for kind, weight in weights.items():
        mine = [entry for entry in by_source.values() if entry["kind"] == kind]
        sums = {key: round(sum(entry[key] for entry in mine), 1) for key in _SUMS}
        limit = recipe.max_images(kind)
        by_kind[kind] = {
            "wanted": weight / sum(weights.values()),
            "obtained": sums["sequences"] / sequences,
            **sums,
            "images_per_sequence": limit,
            "fill": sums["tokens"] / max(1, sums["sequences"] * length),
            "fill_images": sums["images"] / max(1, sums["sequences"] * limit),
            "fill_binding": 1 - sums["wasted_sequences"] / max(1, sums["sequences"]),
        }
    entries = by_source.values()
    room = sum(kind["sequences"] * kind["images_per_sequence"] for kind in by_kind.values())
    wasted = round(sum(entry["wasted_sequences"] for entry in entries), 1)
    tokens, images = (sum(entry[key] for entry in entries) for key in ("tokens", "images"))
    return {
        "tokens": tokens,
        "learned_tokens": sum(entry["learned_tokens"] for entry in entries),
        "images": images,
        "wasted_sequences": wasted,
        "fill": {
            "tokens": tokens / (sequences * length),
            "images": images / room,
            "binding": 1 - wasted / sequences,
        },
        "kinds": by_kind,
        "sources": by_source,
        "warnings": [
            *(warning for source in sources for warning in source.warnings),
            *(_repeated(name, entry) for name, entry in by_source.items() if entry["epochs"] > MAX_EPOCHS),
        ],
    }


def _fill(tokens: int, images: int, sequences: int, max_tokens: int, max_images: int) -> dict[str, float]:
    by_tokens, by_images = tokens / max(1, sequences * max_tokens), images / max(1, sequences * max_images)
    return {"tokens": by_tokens, "images": by_images, "binding": max(by_tokens, by_images)}


def _repeated(name: str, entry: Mapping[str, Any]) -> str:
    return (
        f"{name} is gone through {entry['epochs']:.1f} times: beyond {MAX_EPOCHS} epochs repeated tokens teach less "
        "and less (arXiv 2305.16264); take more data, fewer steps or a smaller weight"
    )


def plan_table(info: Mapping[str, Any]) -> Table:
    """Return a table per kind and source: shares, amounts, epochs, fill, waste; below it totals and warnings.

    Args:
        info: The content of plan.json.
    """
    table = Table(title="plan", title_justify="left", caption_justify="left", caption="\n".join(_caption(info)))
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 0, 0, 0), False
    table.add_column("kind, source", overflow="fold", min_width=14)
    columns = ("share", "seqs", "docs", "epochs", "tokens", "learned", "images", "fill t/i", "wasted")
    for name in columns:  # narrow enough for 80 characters
        table.add_column(name, justify="right", no_wrap=True)
    for kind, total in info["kinds"].items():
        fills = total["fill"], total["fill_images"], total["fill_binding"]
        table.add_row(f"[bold]{kind}[/]", f"{total['obtained']:.1%}", *_cells(total, fills, None), style="bold")
        for name, entry in info["sources"].items():
            if entry["kind"] == kind:
                share = f"{entry['sequences'] / info['sequences']:.1%}"
                fills = entry["fill"]["tokens"], entry["fill"]["images"], entry["fill"]["binding"]
                table.add_row(f"  {escape(name)}", share, *_cells(entry, fills, entry["epochs"]))
        table.add_section()
    return table


def _cells(entry: Mapping[str, Any], fills: tuple[float, float, float], epochs: float | None) -> list[str]:
    style = "[yellow]{}[/]" if epochs is not None and epochs > MAX_EPOCHS else "{}"
    return [
        compact(entry["sequences"]),
        compact(entry["documents"]),
        "" if epochs is None else style.format(f"{epochs:.2f}"),
        compact(entry["tokens"]),
        compact(entry["learned_tokens"]),
        compact(entry["images"]),
        f"{fills[0]:.0%}/{fills[1]:.0%}",
        compact(entry["wasted_sequences"]),
    ]


def _caption(info: Mapping[str, Any]) -> list[str]:
    fill = info["fill"]
    lines = [
        f"{info['steps']:,} steps of {info['batch_size']:,} sequences, each of at most {info['sequence_length']:,} "
        f"tokens and {info['images_per_sequence']:,} images: {compact(info['tokens'])} tokens, "
        f"{compact(info['learned_tokens'])} of them learned, {compact(info['images'])} images",
        f"fill {fill['tokens']:.1%} of the tokens, {fill['images']:.1%} of the images, {fill['binding']:.1%} of "
        f"whichever limit binds: {info['wasted_sequences']:,.0f} of {info['sequences']:,} sequences are wasted",
    ]
    return lines + [f"[yellow]{escape(warning)}[/]" for warning in info["warnings"]]


def compact(number: float) -> str:
    """Return a number with three digits and a unit: 12.3M."""
    if number < 10_000:
        return f"{number:,.0f}"
    unit, size = next(
        (unit, size) for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)) if number >= size
    )
    return f"{number / size:.3g}{unit}"
