"""A study's findings as a Markdown page with a figure, and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from mm1.confidence import p_text
from mm1.files import write_text
from mm1.study.beside_paper import paper_beside
from mm1.study.claims import Measured, measure, verdicts
from mm1.study.figure import mean_of, study_figure
from mm1.study.plan import StudyRun, minutes_of, recipes_of
from mm1.study.results import Results, Scores, read_study
from mm1.study.runner import Failure
from mm1.study.schema import Study, arm_name, chosen
from mm1.study.store import Counts, write_store
from mm1.study.units import replicated
from mm1.study.version import RESULTS_VERSION
from mm1.train.run_directory import read_environment


def write_study_report(
    study: Study, runs: Sequence[StudyRun], directory: Path, failures: Sequence[Failure] = ()
) -> Path:
    """Write `NAME.md`, `NAME.svg`, `NAME.html` and `NAME.json` from the runs that are done.

    Args:
        study: The study.
        runs: Its planned runs; the page says how many are not done.
        directory: The directory for the pages.
        failures: Runs that failed; the page names them with the reason.

    Returns:
        The Markdown page's path.

    Raises:
        UserError: If no run is done, two were scored differently, or seeds were added (see `mm1.study.store`).
    """
    results = replace(read_study(runs), units=replicated(study, recipes_of(runs)), looks=max(1, len(study.looks)))
    measured = measured_claims(study, results)
    counts = Counts(len(runs) - results.missing, len(runs), minutes_of(runs), _machine(runs))
    directory.mkdir(parents=True, exist_ok=True)
    write_store(study, results, measured, counts, directory / f"{study.name}.json")
    figure = study_figure(study, results)
    content = {
        "study": study,
        "findings": verdicts(measured),
        "p_text": p_text,
        "columns": [f"{s.task}, {s.shots}" for s in _columns(results)],
        "with_loss": _with_loss(study),
        "rows": [_row(results, number) for number in range(len(results.arms))],
        "blind": _blind_rows(results),
        "paper": paper_beside(study, results),
        "counts": counts,
        "failures": failures,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mm1.study", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
    )
    page = directory / f"{study.name}.md"
    write_text(directory / f"{study.name}.svg", figure)
    write_text(page, environment.get_template("study.md").render(content))
    svg = Markup(figure[figure.index("<svg") :])  # noqa: S704 - drawn here, not a user's
    write_text(directory / f"{study.name}.html", environment.get_template("study.html").render(content, figure=svg))
    return page


def measured_claims(study: Study, results: Results) -> list[Measured]:
    """Measure the claims whose runs are all done; leave the others out."""
    tested = []
    for claim in study.claims:
        needed = [any(chosen(arm, choice) for choice in claim.choices()) for arm in results.arms]
        if not np.isnan(results.seconds[needed]).any():
            tested.append(measure(claim, results))
    return tested


def _with_loss(study: Study) -> bool:
    """Return whether a study uses the training loss; if arms train on different data, losses aren't comparable."""
    drawn = study.figure is not None and study.figure.metric == "loss"
    return drawn or any(claim.metric == "loss" for claim in study.claims)


def _columns(results: Results) -> list[Scores]:
    return sorted(results.scores, key=lambda s: s.task)


def _row(results: Results, number: int) -> dict[str, Any]:
    """Return an arm's row: its name, a cell for each task and number of shots, one for the loss, minutes per run."""
    arm = results.arms[number]
    cells = [_cell(results, number, scores) for scores in _columns(results)]
    done = results.seconds[number][~np.isnan(results.seconds[number])]
    return {
        "arm": arm_name(arm),
        "seeds": len(done),
        "cells": cells,
        "loss": _cell(results, number, results.loss),
        "minutes": f"{done.mean() / 60:.1f}" if len(done) else "",
    }


def _cell(results: Results, number: int, scores: Scores) -> str:
    """Return an arm's mean and half its interval; empty if a run is missing."""
    estimated = mean_of(results, dict(results.arms[number]), [scores])
    digits = 3 if scores.measure == "nats" else 1
    return "" if estimated is None else f"{estimated[0]:.{digits}f} ± {estimated[1]:.{digits}f}"


def _blind_rows(results: Results) -> list[dict[str, Any]]:
    """Return each arm's scores with swapped pictures, like `_row`; empty if no run has such scores."""
    rows = []
    for number, arm in enumerate(results.arms):
        scored = [s.blind[number][~np.isnan(s.blind[number])] for s in _columns(results)]
        if any(map(len, scored)):
            cells = [f"{points.mean():.1f}" if len(points) else "" for points in scored]
            rows.append({"arm": arm_name(arm), "cells": cells})
    return rows


def _machine(runs: Sequence[StudyRun]) -> str:
    """Return the machines, the version of results and the commits of the runs, as their environment files name them."""
    environments = [read_environment(run.directory) for run in runs if run.seconds is not None]
    machines = dict.fromkeys(
        f"{e['cores']} cores of {e['machine']}, {e['device']}, torch {e['torch']}" for e in environments
    )
    commits = dict.fromkeys(str(e["commit"])[:12] for e in environments if e.get("commit"))
    made = [*machines, f"results version {RESULTS_VERSION}", *([f"commit {', '.join(commits)}"] if commits else [])]
    return "; ".join(made)
