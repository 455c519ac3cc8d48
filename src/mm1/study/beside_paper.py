"""The paper's figures beside a study's arms, and what differs between theirs and ours."""

from __future__ import annotations

from typing import Any

from mm1.paper.published import published_row
from mm1.study.claim import Choice
from mm1.study.figure import mean_of
from mm1.study.results import Results
from mm1.study.schema import Study


def paper_beside(study: Study, results: Results) -> dict[str, Any]:
    """Return the paper's rows, ours beside them, and what differs; empty if the study names none."""
    if not study.paper:
        return {}
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
        ours = {shots: _mean_at(results, each.arm, shots) for shots in scores}
        rows.append(
            {"arm": arm, "scores": scores, "ours": ours, "certainty": each.certainty or (row and row.certainty)}
        )
    here = list(dict.fromkeys(s.task for s in results.scores))
    differs = (
        [f"the mean over {', '.join(tasks)}, here over {', '.join(here)}"] if tasks and set(tasks) != set(here) else []
    )
    if tasks and not set(tasks) & set(here):
        differs.append("none of our tasks has a counterpart in the paper")
    limits = {s.items for s in results.scores}
    differs.append(f"other models and data; here {' or '.join(map(str, sorted(limits)))} items a task")
    counts = sorted({shots for row in rows for shots in row["scores"]})
    return {"rows": rows, "shots": counts, "sources": list(sources), "differs": differs}


def _mean_at(results: Results, arm: Choice, shots: int) -> str:
    """Return an arm's mean score over all tasks at a number of shots; empty if there is none."""
    scores = [s for s in results.scores if s.shots == shots]
    estimated = mean_of(results, arm, scores) if scores else None
    return "" if estimated is None else f"{estimated[0]:.1f}"
