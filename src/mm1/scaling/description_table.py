"""A model's description as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from mm1.scaling.description import Description

_PARTS = {
    "vision": "vision tower",
    "connector": "connector",
    "language_model": "decoder, without embeddings",
    "embeddings": "embeddings",
}

_UNITS = ("", "k", "M", "G", "T")


def description_table(description: Description) -> Table:
    """Return a `rich` table of a model's sizes and costs."""
    d = description
    table = Table(title=d.name, caption=_caption(d))
    table.add_column("")
    table.add_column("parameters", justify="right")
    table.add_column("active per token", justify="right")
    for part, title in _PARTS.items():
        table.add_row(title, short(d.parameters[part]), short(d.active_parameters[part]))
    table.add_section()
    total, active = sum(d.parameters.values()), sum(d.active_parameters.values())
    table.add_row("all", short(total), short(active), style="bold")
    table.add_section()
    for name, title in (("weights", "weights"), ("gradients", "gradients"), ("optimizer", "optimizer")):
        table.add_row(f"{title}, memory", f"{short(d.training_bytes[name])}B", "")
    table.add_section()
    table.add_row("FLOPs per token, forward", short(d.flops_per_token), "")
    table.add_row("FLOPs per image, forward", short(d.flops_per_image), "")
    return table


def short(number: int) -> str:
    """Return a number with three or four digits and its unit: 2.89 G, 631 M, 12.0 k."""
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if value >= 99.95 or unit == 0 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {_UNITS[unit]}".rstrip()


def _caption(d: Description) -> str:
    return (
        f"{d.image_size} px, {d.patches} patches, {d.tokens_per_image} tokens per image; attention at {d.context} "
        "tokens; weights and gradients in bfloat16, AdamW in float32 with its own copy of the weights; training takes "
        "three times the FLOPs. The paper does not disclose the shapes of its decoders; these are chosen to have its "
        "sizes."
    )
