"""The table of scores: one row per task with its subsets and floors below, one column per number of shots."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text as Styled

from mm1.evaluate.metrics import METRICS
from mm1.evaluate.scoring import RIGHT_ANSWER, Result


def score_table(results: Sequence[Result]) -> Table:
    """Return a table of scores in percent with half the width of their 95 % intervals; subsets, draws, floors below.

    Args:
        results: Results of `evaluate_model`, in any order.
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
        for name, subset in first.get("subsets", {}).items():
            values = [_cell(by_count[c]["subsets"].get(name)) if c in by_count else "" for c in counts]
            table.add_row(f"  {name}", "", f"{subset['items']:,}", *values)
        if any(len(result["draws"]) > 1 for result in by_count.values()):
            draws = (_draws(by_count.get(count)) for count in counts)
            table.add_row("  lowest and highest draw", "", "", *draws, style="dim")
        likelihoods = {
            c: result[RIGHT_ANSWER]["log_likelihood"] for c, result in by_count.items() if RIGHT_ANSWER in result
        }
        if likelihoods:
            nats = (f"{likelihoods[c]:.3f}" if likelihoods.get(c) is not None else "" for c in counts)
            table.add_row("  right answer's log-likelihood", "nats", "", *nats, style="dim")
        if (perfect := first.get("perfect")) is not None:
            table.add_row("  a perfect model", "", "", *(f"{100 * perfect:.1f}" for _ in counts), style="dim")
        for floor in first["floors"]:
            values = [_cell(by_count[c]["floors"].get(floor)) if c in by_count else "" for c in counts]
            table.add_row(f"  {floor}", "", "", *values, style="dim")
        table.add_section()
    return table


def _cell(result: Result | None) -> str | Styled:
    if result is None or result["score"] is None:  # nothing was scored
        return ""
    low, high = result["interval"]
    return Styled.assemble(f"{100 * result['score']:.1f} ", (f"±{50 * (high - low):.1f}", "dim"))


def _draws(result: Result | None) -> str:
    scores = [100 * draw["score"] for draw in result["draws"]] if result else []
    return f"{min(scores):.1f} to {max(scores):.1f}" if len(scores) > 1 else ""
