"""Tables for the terminal: scores (a row a task, a column a number of shots, the floors below), and tasks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mm1.evaluate.metrics import METRICS
from mm1.evaluate.runner import Result
from mm1.evaluate.task import load_task, packaged_tasks


def score_table(results: Sequence[Result]) -> Table:
    """Return a table of scores in percent, each with half the width of its 95 % interval, and of the floors.

    Args:
        results: As `evaluate` returns them, in any order.
    """
    counts = sorted({result["shots"] for result in results})
    table = Table(title="Scores", title_justify="left")
    table.add_column("task")
    table.add_column("metric")
    table.add_column("items", justify="right")
    for count in counts:
        table.add_column(f"{count}-shot", justify="right")
    for task in dict.fromkeys(result["task"] for result in results):
        by_count = {result["shots"]: result for result in results if result["task"] == task}
        first = next(iter(by_count.values()))
        errors = max(result["errors"] for result in by_count.values())
        items = f"{first['items']:,}" + (f" ({errors} errors)" if errors else "")
        scores = [_cell(by_count.get(count)) for count in counts]
        table.add_row(task, METRICS[first["metric"]].title, items, *scores)
        for floor in first["floors"]:
            values = [_cell(by_count[c]["floors"].get(floor)) if c in by_count else "" for c in counts]
            table.add_row(f"[dim]  {floor}[/]", "", "", *(f"[dim]{value}[/]" for value in values))
        table.add_section()
    return table


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    low, high = result["interval"]
    return f"{100 * result['score']:.1f} [dim]±{50 * (high - low):.1f}[/]"


def task_table() -> Table:
    """Return a table of the packaged tasks with what each needs, for `mm1 tasks`."""
    table = Table(title="Tasks", title_justify="left")
    for column in ("task", "what it asks", "data", "metric"):
        table.add_column(column)
    for name in packaged_tasks():
        task = load_task(name)
        pool = "" if task.pool == task.data else f"\nshots: {task.pool.title}"
        place = "" if task.data.corpus else "Hub: "
        table.add_row(name, task.description, f"{place}{task.data.title}{pool}", METRICS[task.metric].title)
    return table
