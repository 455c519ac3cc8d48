"""A table of a corpus's content, for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

LABELS = {"skipped": "left out", "lost": "parts left out", "changed": "changed", "unread": "not read"}
"""What the reasons that `corpus.json` counts are called, by key."""


def corpus_table(info: dict[str, Any]) -> Table:
    """Return a table of a corpus: counts per split, licence, how it was derived, what was left out.

    Args:
        info: The content of `corpus.json`.
    """
    lines = [f"licence: {info['licence']}"]
    if info["derived"]:
        lines.append(f"derived: {info['derived']}")
    if read := sum(split.get("read", 0) for split in info["splits"].values()):
        lines.append(f"read: {read:,} records")
    for name, split in info["splits"].items():
        lines += _references(name, split)
    for name, label in LABELS.items():
        lines += [f"{label}: {entry['count']:,} ({reason})" for reason, entry in info.get(name, {}).items()]
    # As Text: brackets are no markup here.
    title, caption = Text(info["name"]), Text("\n".join(lines))
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("split")
    for name in ("documents", "images", "characters"):
        table.add_column(name, justify="right")
    for name, split in info["splits"].items():
        table.add_row(name, *(f"{split[key]:,}" for key in ("documents", "images", "characters")))
    return table


def _references(name: str, split: dict[str, Any]) -> list[str]:
    """Return what lies in source files of a split by reference, and what doesn't."""
    located = split.get("located")
    if located is None:
        return []
    what = f"{located['pictures']:,} pictures and {located['texts']:,} texts, {located['bytes']:,} bytes"
    stored = [f"stored: {entry['count']:,} ({reason})" for reason, entry in split["stored"].items()]
    return [f"{name} refers to {len(located['files']):,} files: {what}", *stored]
