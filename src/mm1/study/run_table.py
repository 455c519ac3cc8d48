"""Tables of runs: of one study with the time that is left, of submitted jobs, of all studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text as Styled

from mm1.study.plan import StudyRun, training_seconds
from mm1.study.schema import Study, arm_name
from mm1.study.submit import Submitted
from mm1.train.run_directory import SCHEDULER_LOGS


def run_table(study: Study, runs: Sequence[StudyRun], jobs: int) -> Table:
    """Return a table of the arms that shows which seeds are done and how long the rest takes (`minutes_left`)."""
    missing = sum(run.seconds is None for run in runs)
    minutes = minutes_left(study, runs, jobs)
    left = "unknown, since no run has been timed" if minutes is None else f"about {minutes:.0f} minutes"
    table = Table(
        title=f"{study.name}: {study.question}",
        title_justify="left",
        caption=f"{missing} of {len(runs)} runs to make; time left: {left if missing else 'none'}",
    )
    table.add_column("arm")
    for seed in study.seeds:
        table.add_column(f"seed {seed}")
    for arm in study.arms():
        states = ("to make" if run.seconds is None else Styled("done", "green") for run in runs if run.arm == arm)
        table.add_row(arm_name(arm), *states)
    return table


def submitted_table(submitted: Submitted) -> Table:
    """Return a table of the jobs that make a study's runs."""
    table = Table(title="Jobs", title_justify="left", caption="when the jobs have ended, run the same command again")
    for column in ("job", "run", "", "log"):
        table.add_column(column)
    for jobs, state in ((submitted.queued, "in the queue"), (submitted.jobs, "submitted")):
        for job, group in jobs.items():
            for run in group:
                table.add_row(job, run.name, state, str(run.directory / SCHEDULER_LOGS))
    return table


def minutes_left(study: Study, runs: Sequence[StudyRun], jobs: int) -> float | None:
    """Return the minutes that the remaining runs will take; None if unknown.

    The estimate uses the mean times of the completed runs and assumes that as many ran at a time as will now. Without
    completed runs it uses the study file's `minutes`, the time of one run with all cores. A training that exists
    already needs only its scoring, and a training that several runs share counts once.
    """
    missing = [run for run in runs if run.seconds is None]
    done = [run for run in runs if run.seconds is not None]
    if not done:
        return None if study.minutes is None else study.minutes * len(missing)
    training = sum(training_seconds(run.directory) for run in done) / len(done)
    scoring = sum(run.scoring_seconds or 0.0 for run in done) / len(done)
    to_train = {run.directory for run in missing if not (run.directory / "model" / "config.json").is_file()}
    return (training * len(to_train) + scoring * len(missing)) / 60 / jobs


def lessons_table(planned: Sequence[tuple[Study, Sequence[StudyRun]]], jobs: int) -> Table:
    """Return a table of several studies: how many runs are done and to make, and how long the rest takes.

    A run that a study shares with one above it counts for the one above. Where no run has been timed, the time is
    unknown, and that of all studies with it.
    """
    table = Table(title="Studies of the scoreboard", title_justify="left", show_footer=True)
    rows, times, above = [], list[float | None](), set[Path]()
    for study, runs in planned:
        own = [run for run in runs if run.seconds is not None or run.scores not in above]
        above.update(run.scores for run in runs)
        missing = sum(run.seconds is None for run in own)
        times.append(minutes_left(study, own, jobs) if missing else 0.0)
        rows.append((study.name, str(len(own) - missing), str(missing), _minutes(times[-1:])))
    for name, footer in (("study", "all"), ("done", ""), ("to make", ""), ("minutes left, about", _minutes(times))):
        table.add_column(name, footer, justify="left" if name == "study" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _minutes(times: Sequence[float | None]) -> str:
    return "unknown" if None in times else f"{sum(filter(None, times)):.0f}"
