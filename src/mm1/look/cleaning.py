"""A table of what cleaning dropped, for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text


def cleaning_table(info: dict[str, Any]) -> Table:
    """Return a table of the cleaning steps of a corpus: the documents and pictures that each dropped, with reasons.

    Args:
        info: The result of `mm1.clean.clean`, which is the content of the cleaned corpus's `corpus.json`.
    """
    table = Table(title=info["name"], title_justify="left")
    table.add_column("split, step")
    for name in ("documents", "pictures"):
        table.add_column(name, justify="right")
    table.add_column("dropped for")
    for name, split in info["splits"].items():
        before = split["cleaned_from"]
        table.add_row(Text.assemble((name, "bold"), " before"), f"{before['documents']:,}", f"{before['images']:,}", "")
        for step in split["cleaning"]:
            reasons = ", ".join(f"{reason}: {entry['count']:,}" for reason, entry in step["reasons"].items())
            table.add_row(f"  {step['step']}", f"{-step['documents']:,}", f"{-step['images']:,}", reasons)
        after = (f"{split[key]:,}" for key in ("documents", "images"))
        table.add_row(Text.assemble((name, "bold"), " after"), *after, "", end_section=True)
    return table
