"""One progress bar for every long job: what is happening, how fast, how long it will still take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")


def terminal(**options: Any) -> Console:
    """Return a console that prints names, paths and licences as they are: brackets in them are no markup."""
    return Console(**{"highlight": False, "markup": False, "emoji": False} | options)


console = terminal(stderr=True)


class RateColumn(ProgressColumn):
    """Items per second, over the whole of the task so far."""

    def render(self, task: Task) -> Text:
        """Return the rate as `12.3/s`, or nothing while it isn't known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="cyan")


class _NotesBelow(Progress):
    """Bars with their notes on lines of their own, for notes that would leave the bar no room."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars, then the notes."""
        yield self.make_tasks_table(self.tasks)
        yield from (Text(f"  {task.fields['note']}", style="dim") for task in self.tasks if task.fields["note"])


def progress_bar(notes_below: bool = False) -> Progress:
    """Return a `rich` progress display in the house style (written to standard error).

    Args:
        notes_below: Whether the tasks' notes stand below the bars and not beside them.
    """
    notes = () if notes_below else (TextColumn("{task.fields[note]}", style="dim", markup=False),)
    return (_NotesBelow if notes_below else Progress)(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        *notes,
        console=console,
    )


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield from `items` and show a progress bar meanwhile.

    Args:
        items: What to go through.
        description: What is being done, in a few words.
        total: How many items there are; taken from `len(items)` where that exists.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar() as bar:
        task = bar.add_task(description, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)
