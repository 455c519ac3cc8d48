"""`mm1 study`: questions put to training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.cli.complete import complete_study, complete_world
from mm1.cli.options import parse_options
from mm1.progress import console

app = typer.Typer(help="Answer questions about training with studies: runs, tests, pages.", no_args_is_help=True)

Name = Annotated[
    str,
    typer.Argument(
        help="Name of a packaged study, such as laptop/document-mask, or a YAML file.", autocompletion=complete_study
    ),
]
Directory = Annotated[Path, typer.Option("--to", help="Directory of the runs and pages of all studies.")]
Jobs = Annotated[
    int,
    typer.Option(
        min=1,
        help="Number of runs, or of seeds' encoders and base models, at the same time. They share the CPU cores.",
    ),
]
ListOnly = Annotated[
    bool, typer.Option("--list", help="List the runs with their estimated time and exit. Default: they are made.")
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        help="Submit a SLURM job for each training, with this option of mm1 launch or sbatch, as in gpus_per_node=8. "
        "May be repeated. Default: the runs are made here."
    ),
]
STUDIES = Path("runs/studies")


@app.command()
def run(
    study: Name,
    to: Directory = STUDIES,
    jobs: Jobs = 1,
    dry: ListOnly = False,
    slurm: Slurm = None,
) -> None:
    """Make the missing runs of a study, and write its pages."""
    from mm1.launch import require_slurm
    from mm1.study.plan import plan_runs
    from mm1.study.prepare import prepared_runs
    from mm1.study.report import write_study_report
    from mm1.study.run_table import run_table, submitted_table
    from mm1.study.runner import make_runs
    from mm1.study.schema import load_study
    from mm1.study.submit import resources_from, submit_runs

    loaded = load_study(study)
    if dry:
        console.print(run_table(loaded, plan_runs(loaded, to / "runs"), jobs))
        return
    resources = resources_from(parse_options(slurm, "--slurm")) if slurm else None
    if resources is not None:
        require_slurm()
    (runs,) = prepared_runs([loaded], to / "runs", jobs)
    console.print(run_table(loaded, runs, jobs))
    if resources is not None:
        console.print(submitted_table(submit_runs(loaded.name, runs, resources)))
        if any(run.seconds is not None for run in runs):
            console.print(f"the page so far: {write_study_report(loaded, runs, to)}")
        return
    failures = make_runs(runs, jobs)
    console.print(f"the page: {write_study_report(loaded, runs, to, failures)}")
    if failures:
        raise typer.Exit(1)


@app.command(hidden=True)
def make(
    recipes: Annotated[list[Path], typer.Argument(help="Resolved recipes of runs that share one training.")],
    to: Annotated[Path, typer.Option(help="Directory of the runs.")],
) -> None:
    """Make the runs of one training. `mm1 study run` and its jobs call this."""
    from mm1.study.runner import make_run

    make_run(recipes, to)


@app.command()
def report(study: Name, to: Directory = STUDIES) -> None:
    """Write a study's pages from the runs that are done. Other runs may still be under way."""
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
    world: Annotated[
        str,
        typer.Argument(help="The packaged studies WORLD/..., such as laptop or hands.", autocompletion=complete_world),
    ] = "laptop",
    to: Directory = STUDIES,
    jobs: Jobs = 1,
    dry: ListOnly = False,
    page: Annotated[
        bool,
        typer.Option(
            "--page",
            help="Only write the scoreboard, from the results that are stored in the directory (NAME.json of each "
            "study). Default: missing runs are made.",
        ),
    ] = False,
) -> None:
    """Make the missing runs of all studies of a world, and write their pages and the scoreboard of claims."""
    from mm1.study.lessons import lesson_studies, write_lessons
    from mm1.study.plan import plan_runs
    from mm1.study.prepare import prepared_runs
    from mm1.study.report import write_study_report
    from mm1.study.run_table import lessons_table, run_table
    from mm1.study.runner import make_runs

    studies = lesson_studies(world)
    if page:
        console.print(f"the scoreboard: {write_lessons(studies, to, world)}")
        return
    store = to / "runs"
    if dry:
        console.print(lessons_table([(study, plan_runs(study, store)) for study in studies], jobs))
        return
    failed = False
    for study, runs in zip(studies, prepared_runs(studies, store, jobs), strict=True):
        console.print(run_table(study, runs, jobs))
        failures = make_runs(runs, jobs)
        failed |= bool(failures)
        if any(run.seconds is not None for run in runs):
            write_study_report(study, runs, to, failures)
    console.print(f"the scoreboard: {write_lessons(studies, to, world)}")
    if failed:
        raise typer.Exit(1)
