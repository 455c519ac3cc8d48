"""The table of a run's scores beside the paper's, for the same tasks and numbers of shots."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from mm1.errors import UserError
from mm1.evaluate.compare import read_results
from mm1.paper.published import protocol_differences, published_scores, without_counterpart


def paper_table(run: Path, model: str) -> tuple[Table | None, str | None]:
    """Return a table of a run's scores beside the paper's, and a sentence on the tasks that the paper doesn't have.

    Args:
        run: A run's directory, or a directory of result files.
        model: The published model, such as `mm1-3b`.

    Raises:
        UserError: If there is no such model, or the run has no results.
    """
    published = published_scores(model)
    results = read_results(run)
    missing = without_counterpart(model, (task for task, _ in results))
    common = [key for key in sorted(results) if key in published]
    if not common:
        known = {task for task, _ in published}
        if missing is None or known & {task for task, _ in results}:
            counts = sorted({shots for _, shots in published})
            raise UserError(
                f"{run}: the paper's scores of {model} are at {counts} shots: score the run at one of these"
            )
        return None, missing
    table = Table(title=f"Beside the paper's {model}", title_justify="left")
    for column in ("task", "shots", "here", "paper", "certainty", "what differs in the protocol"):
        table.add_column(column, justify="right" if column in ("shots", "here", "paper") else "left")
    for key in common:
        result, other = results[key], published[key]
        differences = protocol_differences(model, key[0], result["protocol"], result["metric"])
        table.add_row(
            key[0],
            str(key[1]),
            f"{100 * result['score']:.1f}",
            f"{other.score:.1f}",
            other.certainty,
            "; ".join(differences) or "nothing that is known",
        )
    table.caption = published[common[0]].source
    table.caption_justify = "left"
    return table, missing
