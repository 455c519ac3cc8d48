"""`mm1 study`: questions put to training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.cli.options import parse_options
from mm1.progress import console

app = typer.Typer(help="Studies: run what a question needs, and answer it.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A packaged study's name, such as laptop/document-mask, or a YAML file.")]
Directory = Annotated[Path, typer.Option("--to", help="Where all studies' runs and pages are.")]
STUDIES = Path("runs/studies")


@app.command()
def run(
    study: Name,
    to: Directory = STUDIES,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; the cores are shared out among them.")] = 1,
    dry: Annotated[bool, typer.Option("--list", help="Only list the runs with the estimated time.")] = False,
    slurm: Annotated[
        list[str] | None,
        typer.Option(help="A job for each training instead: options of `mm1 launch` or sbatch, as in gpus_per_node=8."),
    ] = None,
) -> None:
    """Make a study's runs, those that are not there; then write its pages."""
    from mm1.launch import require_slurm
    from mm1.study.plan import plan_runs
    from mm1.study.report import write_study_report
    from mm1.study.run_table import run_table, submitted_table
    from mm1.study.runner import make_runs, prepared_runs
    from mm1.study.schema import load_study
    from mm1.study.submit import resources_from, submit_runs

    loaded = load_study(study)
    if dry:
        console.print(run_table(loaded, plan_runs(loaded, to / "runs"), jobs))
        return
    resources = resources_from(parse_options(slurm, "--slurm")) if slurm else None
    if resources is not None:
        require_slurm()
    runs = prepared_runs(loaded, to / "runs")
    console.print(run_table(loaded, runs, jobs))
    if resources is not None:
        console.print(submitted_table(submit_runs(loaded.name, runs, resources)))
        if any(run.seconds is not None for run in runs):
            console.print(f"the page, so far: {write_study_report(loaded, runs, to)}")
        return
    failures = make_runs(runs, jobs)
    console.print(f"the page: {write_study_report(loaded, runs, to, failures)}")
    if failures:
        raise typer.Exit(1)


@app.command(hidden=True)
def make(
    recipes: Annotated[list[Path], typer.Argument(help="The runs' resolved recipes: of one training.")],
    to: Annotated[Path, typer.Option(help="The runs' directory.")],
) -> None:
    """Make the runs of one training, as `study run` and its jobs call it."""
    from mm1.study.runner import make_run

    make_run(recipes, to)


@app.command()
def report(study: Name, to: Directory = STUDIES) -> None:
    """Write a study's pages from the runs that are there, also while others go on."""
    from mm1.study.plan import plan_runs
    from mm1.study.report import write_study_report
    from mm1.study.schema import load_study

    loaded = load_study(study)
    console.print(f"the page: {write_study_report(loaded, plan_runs(loaded, to / 'runs'), to)}")


@app.command("list")
def list_() -> None:
    """List the packaged studies with their questions."""
    from mm1.study.study_table import study_table

    console.print(study_table())


@app.command()
def lessons(
    to: Directory = STUDIES,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; the cores are shared out among them.")] = 1,
    dry: Annotated[bool, typer.Option("--list", help="Only list the runs with the estimated time.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Write the scoreboard from the runs that are there.")] = False,
) -> None:
    """Make the runs of all laptop studies that are not there; write their pages and the scoreboard of claims."""
    from mm1.study.lessons import lesson, lesson_studies, write_lessons
    from mm1.study.plan import plan_runs
    from mm1.study.report import write_study_report
    from mm1.study.run_table import lessons_table, run_table
    from mm1.study.runner import make_runs, prepared_runs

    prepare = plan_runs if dry or page else prepared_runs
    planned = [(study, prepare(study, to / "runs")) for study in lesson_studies()]
    if dry:
        console.print(lessons_table(planned, jobs))
        return
    failed = False
    for study, runs in () if page else planned:
        console.print(run_table(study, runs, jobs))
        failures = make_runs(runs, jobs)
        failed |= bool(failures)
        if any(run.seconds is not None for run in runs):
            write_study_report(study, runs, to, failures)
            write_lessons([lesson(*each) for each in planned], to)
    console.print(f"the scoreboard: {write_lessons([lesson(*each) for each in planned], to)}")
    if failed:
        raise typer.Exit(1)
