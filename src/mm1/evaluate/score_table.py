"""Tables for the terminal: scores (a row a task, a column a number of shots, the floors below), and tasks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mm1.evaluate.metrics import METRICS
from mm1.evaluate.scoring import Result
from mm1.evaluate.tasks.task import ItemSource, load_task, packaged_tasks


def score_table(results: Sequence[Result]) -> Table:
    """Return a table of scores in percent with half the width of their 95 % intervals; of draws and floors below.

    Args:
        results: As `evaluate_model` returns them, in any order.
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
        if any(len(result["draws"]) > 1 for result in by_count.values()):
            table.add_row("[dim]  lowest and highest draw[/]", "", "", *(_draws(by_count.get(c)) for c in counts))
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


def _draws(result: Result | None) -> str:
    scores = [100 * draw["score"] for draw in result["draws"]] if result else []
    return f"[dim]{min(scores):.1f} to {max(scores):.1f}[/]" if len(scores) > 1 else ""


def task_table() -> Table:
    """Return a table of the packaged tasks with what each needs, for `mm1 tasks`."""
    table = Table(title="Tasks", title_justify="left")
    table.add_column("task", no_wrap=True)
    table.add_column("what it asks")
    table.add_column("data", overflow="fold")
    for name in packaged_tasks():
        task = load_task(name)
        needs = [task.data.title if task.data.corpus else f"Hub: {_needed(task.data)}"]
        if task.pool != task.data:
            needs.append(f"shots: {_needed(task.pool)}")
        table.add_row(f"{name}\n[dim]{METRICS[task.metric].title}[/]", task.description, "\n".join(needs))
    return table


def _needed(source: ItemSource) -> str:
    """Return a source and what else it takes: ids, or pictures from another table."""
    ids = "" if source.only is None else f", ids: {source.only if isinstance(source.only, str) else source.only.title}"
    return source.title + ids + (f", pictures: {source.pictures.name}" if source.pictures else "")
