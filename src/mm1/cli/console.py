"""Where a command prints what it was asked for."""

from __future__ import annotations

from rich.console import Console

from mm1.progress import terminal
from mm1.ranks import is_first_rank


def output() -> Console:
    """Return a console on standard output. Only the first rank prints."""
    return terminal(quiet=not is_first_rank())
