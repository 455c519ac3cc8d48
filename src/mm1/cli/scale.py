"""`mm1 scale`: the learning-rate law, and what a training run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.cli.options import Set
from mm1.errors import UserError
from mm1.progress import console

app = typer.Typer(help="Scale up: learning rates by the law, memory, time and cost.", no_args_is_help=True)

Points = Annotated[Path, typer.Argument(help="CSV, JSON or JSONL: size, learning_rate, score or loss, seed.")]
LeaveOut = Annotated[bool, typer.Option("--leave-out", help="Go on without sizes whose optimum can't be told.")]


@app.command()
def predict(
    models: Annotated[list[str] | None, typer.Argument(help="Packaged recipes, such as mm1-3b, or YAML files.")] = None,
    params: Annotated[
        list[float] | None, typer.Option(help="N: the decoder's parameters without embeddings, such as 2.9e9.")
    ] = None,
    points: Annotated[Path | None, typer.Option(help="A sweep, whose law is taken; default: the paper's law.")] = None,
    leave_out: LeaveOut = False,
) -> None:
    """Predict learning rate and weight decay from a decoder's size."""
    from mm1.cli import output
    from mm1.scaling.fit import fit_file
    from mm1.scaling.law_table import prediction_table
    from mm1.scaling.subject import law_size

    if any(size <= 0 for size in params or []):
        raise UserError("--params: a size must be above 0")
    sizes = [("", size) for size in params or []] + [(name, float(law_size(name))) for name in models or []]
    if not sizes:
        raise UserError("nothing to predict for: give --params 2.9e9, or a model such as mm1-3b")
    output().print(prediction_table(sizes, None if points is None else fit_file(points, leave_out)))


@app.command()
def sweep(
    study: Annotated[str, typer.Argument(help="A study over sizes and learning rates, such as laptop/learning-rate.")],
    points: Annotated[Path, typer.Option(help="Where the points go, a CSV file for `mm1 scale fit`.")],
    to: Annotated[Path, typer.Option(help="Where all studies' runs and pages are.")] = Path("runs/studies"),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; the cores are shared out among them.")] = 1,
    slurm: Annotated[list[str] | None, typer.Option(help="As of `mm1 study run`.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Whose mean is the score, with commas; default: all.")] = None,
    shots: Annotated[str | None, typer.Option(help="Numbers of shots likewise; the paper's law is of 8.")] = None,
    loss: Annotated[bool, typer.Option("--loss", help="The training loss at the end, in place of the score.")] = False,
) -> None:
    """Make a sweep's runs, those that are not there, and write its points."""
    from mm1.cli.options import parse_shots, split_commas
    from mm1.cli.study import run as run_study
    from mm1.study.plan import plan_runs
    from mm1.study.schema import load_study
    from mm1.study.sweep import write_points

    failed = None
    try:
        run_study(study, to, jobs, dry=False, slurm=slurm)
    except typer.Exit as some_failed:
        failed = some_failed
    runs = plan_runs(load_study(study), to / "runs")
    if slurm and all(run.seconds is None for run in runs):
        console.print("no run is done yet: the same command writes points when some are")
        return
    wanted = parse_shots(shots) if shots else None
    count = write_points(runs, points, split_commas(tasks) if tasks else None, wanted, loss)
    console.print(f"{count} of {len(runs)} points: {points}")
    if failed is not None:
        raise failed


@app.command()
def fit(points: Points, leave_out: LeaveOut = False) -> None:
    """Fit the law to a sweep: optimum per size, line, each size against the law of the others."""
    from mm1.cli import output
    from mm1.scaling.fit import fit_file
    from mm1.scaling.law_table import fit_table

    output().print(fit_table(fit_file(points, leave_out)))


@app.command()
def plot(
    points: Points,
    to: Annotated[Path, typer.Option(help="The figure, an SVG.")] = Path("law.svg"),
    leave_out: LeaveOut = False,
) -> None:
    """Draw a sweep and the law fitted to it."""
    from mm1.scaling.fit import fit_file
    from mm1.scaling.plot import write_plot

    write_plot(fit_file(points, leave_out), to)
    console.print(f"the figure: {to}")


@app.command()
def budget(
    models: Annotated[list[str], typer.Argument(help="Packaged recipes, such as mm1-3b, or YAML files.")],
    gpus: Annotated[int, typer.Option(min=1, help="How many.")] = 64,
    gpu: Annotated[str, typer.Option(help="Of which kind: a100-40, a100-80, h100, h200, b200, ...")] = "h100",
    mfu: Annotated[
        float | None, typer.Option(help="Share of the peak that matrix products reach; default 0.4, not measured here.")
    ] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(help="What one GPU was measured to train at, in place of --mfu.")
    ] = None,
    document_length: Annotated[
        int | None, typer.Option(min=1, help="Mean tokens of a document; default: the whole sequence.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of a GPU hour, in your currency.")] = None,
    set_: Set = None,
) -> None:
    """Say what training takes: FLOPs, memory per GPU, time, communication, cost; picks a layout that fits."""
    from mm1.cli import output
    from mm1.recipe import load_recipe
    from mm1.scaling.budget import MFU, make_budget
    from mm1.scaling.budget_table import budget_table, layout_settings
    from mm1.scaling.gpus import gpu as gpu_named

    if mfu is not None and tokens_per_second is not None:
        raise UserError("--mfu and --tokens-per-second say the same thing twice: give one of them")
    if mfu is not None and not 0 < mfu <= 1:
        raise UserError(f"--mfu {mfu:g}: a share of the peak is above 0 and at most 1")
    if tokens_per_second is not None and tokens_per_second <= 0:
        raise UserError(f"--tokens-per-second {tokens_per_second:g}: a rate is above 0")
    for name in models:
        made = make_budget(
            load_recipe(name, set_ or []),
            gpu_named(gpu),
            gpus,
            mfu=mfu or MFU,
            tokens_per_second=tokens_per_second,
            document_length=document_length,
        )
        output().print(budget_table(made, price))
        typer.echo(f"to train so: {layout_settings(made)}")
