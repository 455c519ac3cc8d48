"""The table of the packaged tasks."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text as Styled

from mm1.evaluate.metrics import METRICS
from mm1.evaluate.tasks.task import ItemSource, load_task, packaged_tasks


def task_table() -> Table:
    """Return a table of the packaged tasks, each with its question and its data."""
    table = Table(title="Tasks", title_justify="left")
    table.add_column("task", no_wrap=True)
    table.add_column("what it asks")
    table.add_column("data", overflow="fold")
    for name in packaged_tasks():
        task = load_task(name)
        needs = [task.data.title if task.data.corpus else f"Hub: {_needed(task.data)}"]
        if task.pool != task.data:
            needs.append(f"shots: {_needed(task.pool)}")
        title = Styled.assemble(f"{name}\n", (METRICS[task.metric].title, "dim"))
        table.add_row(title, task.description, "\n".join(needs))
    return table


def _needed(source: ItemSource) -> str:
    """Return a source with its further needs: ids, or pictures from another table."""
    ids = "" if source.only is None else f", ids: {source.only if isinstance(source.only, str) else source.only.title}"
    return source.title + ids + (f", pictures: {source.pictures.name}" if source.pictures else "")
