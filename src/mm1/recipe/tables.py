"""Recipes and their keys for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.table import Table

from mm1.recipe.any_kind import recipe_list
from mm1.recipe.keys import Key


def recipe_table() -> Table:
    """Return a table of the packaged recipes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    table.add_column("mm1 ..", no_wrap=True)
    table.add_column("what it is")
    for name, command, title in recipe_list():
        table.add_row(name, command, title)
    return table


def key_lines(keys: Sequence[Key], width: int) -> str:
    """Return keys as lines: each with its default and what it takes, and below what it is.

    Args:
        keys: The keys.
        width: Columns of the terminal.
    """
    lines = []
    for key in keys:
        lines.append(f"{key.name}: {'(required)' if key.default is None else key.default}    [{key.takes}]")
        lines += textwrap.wrap(key.description, width, initial_indent="    ", subsequent_indent="    ")
    if any(".KIND" in key.name for key in keys):
        lines.append("KIND is caption, interleaved, text or chat; [] is a place in a list.")
    return "\n".join(lines)
