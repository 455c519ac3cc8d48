"""The figures of a plan by kind and source, for plan.json and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mm1.recipe import DataRecipe

if TYPE_CHECKING:
    from mm1.plan.sources import Place, Source, Totals

MAX_EPOCHS = 4
"""Epochs of a source above which the plan warns. Up to four epochs, repeated tokens are worth nearly as much as new
ones; then their worth falls to zero ("Scaling Data-Constrained Language Models", arXiv 2305.16264, abstract)."""

_SUMS = ("sequences", "documents", "tokens", "target_tokens", "images", "wasted_sequences")


def plan_figures(sources: Sequence[Source], totals: Sequence[Totals], recipe: DataRecipe) -> dict[str, Any]:
    """Return the figures for plan.json.

    Args:
        sources: The sources in the plan's order.
        totals: The amounts that the plan takes from each source.
        recipe: Gives limits and weights.

    Returns:
        `tokens`, `target_tokens`, `images`, `wasted_sequences` and `fill` of the whole plan; the same and more by kind
        (`kinds`) and source (`sources`); `warnings`. The fill is the mean share of each limit, tokens and images, that
        sequences use; `binding` is the fill of the binding limit of each source. Packing wastes the sequences that
        `binding` lacks to one. A source's `read` has `from` and `located_in` (see `Place`), the `bytes` that a training
        reads, as estimated from the mean document, and those that the source has (`bytes_per_epoch`).
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
            **({} if source.place is None else {"read": _read(source.place, total.documents, len(source))}),
        }
    sequences = sum(total.sequences for total in totals)
    weights = {kind: mix.weight for kind, mix in recipe.mixture.items() if mix.weight > 0}
    by_kind = {}
    for kind, weight in weights.items():
        of_kind = [entry for entry in by_source.values() if entry["kind"] == kind]
        sums = {key: round(sum(entry[key] for entry in of_kind), 1) for key in _SUMS}
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
        "target_tokens": sum(entry["target_tokens"] for entry in entries),
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


def with_present_names(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a plan.json with today's keys; older plans have `learned_tokens` for `target_tokens`."""
    return {
        key.replace("learned_tokens", "target_tokens"): with_present_names(value) if isinstance(value, dict) else value
        for key, value in figures.items()
    }


def _fill(tokens: int, images: int, sequences: int, max_tokens: int, max_images: int) -> dict[str, float]:
    by_tokens, by_images = tokens / max(1, sequences * max_tokens), images / max(1, sequences * max_images)
    return {"tokens": by_tokens, "images": by_images, "binding": max(by_tokens, by_images)}


def _read(place: Place, documents: int, of_epoch: int) -> dict[str, Any]:
    return {
        "from": place.directory,
        "located_in": place.located_in,
        "bytes": round(documents * place.bytes_of_document),
        "bytes_per_epoch": round(of_epoch * place.bytes_of_document),
    }


def _repeated(name: str, entry: Mapping[str, Any]) -> str:
    return (
        f"{name} is used for {entry['epochs']:.1f} epochs: after {MAX_EPOCHS} epochs repeated tokens are worth less "
        "and less (arXiv 2305.16264): use more data, fewer steps or a smaller weight"
    )
