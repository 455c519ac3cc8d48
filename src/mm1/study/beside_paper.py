"""The paper's figures beside a study's arms, and what differs between theirs and ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mm1.paper.published import published_row
from mm1.study.claim import Choice
from mm1.study.figure import mean_of
from mm1.study.results import Results, Scores
from mm1.study.schema import Study


def paper_beside(study: Study, results: Results) -> dict[str, Any]:
    """Return the paper's rows, ours beside them, and what differs; empty if the study names none.

    Ours are means over the tasks of the study's figure: a task of text alone, for example, has no part in a mean that
    stands beside the paper's over tasks with pictures.
    """
    if not study.paper:
        return {}
    drawn = study.figure.tasks if study.figure else None
    compared = [s for s in results.scores if drawn is None or s.task in drawn]
    rows: list[dict[str, Any]] = []
    tasks: dict[str, None] = {}
    sources: dict[str, None] = {}
    for each in study.paper:
        row = None if each.row is None else published_row(each.row)
        scores = each.scores if row is None else row.scores
        if row is not None:
            tasks |= dict.fromkeys(row.tasks)
            sources[row.source] = None
        arm = ", ".join(f"{axis} {value}" for axis, value in each.arm.items())
        ours = {shots: _mean_of(results, each.arm, [s for s in compared if s.shots == shots]) for shots in scores}
        rows.append(
            {"arm": arm, "scores": scores, "ours": ours, "certainty": each.certainty or (row and row.certainty)}
        )
    here = list(dict.fromkeys(s.task for s in compared))
    differs = (
        [f"the mean over {', '.join(tasks)}, here over {', '.join(here)}"] if tasks and set(tasks) != set(here) else []
    )
    if tasks and not set(tasks) & set(here):
        differs.append("none of our tasks has a counterpart in the paper")
    limits = {s.items for s in compared}
    differs.append(f"other models and data; here {' or '.join(map(str, sorted(limits)))} items a task")
    counts = sorted({shots for row in rows for shots in row["scores"]})
    return {"rows": rows, "shots": counts, "sources": list(sources), "differs": differs}


def _mean_of(results: Results, arm: Choice, scores: Sequence[Scores]) -> str:
    """Return an arm's mean of some scores; empty if there are none."""
    estimated = mean_of(results, arm, scores) if scores else None
    return "" if estimated is None else f"{estimated[0]:.1f}"
