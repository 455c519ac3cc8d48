"""`mm1 scale`: the learning-rate law, and what a training run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.cli.complete import complete_recipe, complete_study, complete_tasks
from mm1.cli.console import output
from mm1.cli.options import Recipes, Set, parse_shots, split_commas
from mm1.cli.study import STUDIES, Directory, Jobs, Slurm
from mm1.cli.study import run as run_study
from mm1.errors import UserError
from mm1.progress import console

app = typer.Typer(
    help="Plan larger trainings: learning rates by the scaling law, memory, time and cost.", no_args_is_help=True
)

Points = Annotated[
    Path,
    typer.Argument(
        help="CSV, JSON or JSONL file with the points of a sweep: size, learning_rate, score or loss, and seed."
    ),
]
LeaveOut = Annotated[
    bool, typer.Option("--leave-out", help="Leave out sizes without a clear optimum. Default: they are an error.")
]


@app.command()
def predict(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of packaged recipes, such as mm1-3b, or YAML files. Default: none.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    params: Annotated[
        list[float] | None,
        typer.Option(
            help="Size of a decoder: its parameters without embeddings, such as 2.9e9. May be repeated. Default: none."
        ),
    ] = None,
    points: Annotated[
        Path | None, typer.Option(help="Fit the law to the points of a sweep in this file. Default: the paper's law.")
    ] = None,
    leave_out: LeaveOut = False,
) -> None:
    """Predict the learning rate and the weight decay for a decoder of some size."""
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
    study: Annotated[
        str,
        typer.Argument(
            help="Study over sizes and learning rates: a packaged one, such as laptop/learning-rate, or a YAML file.",
            autocompletion=complete_study,
        ),
    ],
    points: Annotated[Path, typer.Option(help="CSV file to write, which mm1 scale fit reads.")],
    to: Directory = STUDIES,
    jobs: Jobs = 1,
    slurm: Slurm = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks whose mean is the score, separated by commas. Default: all that the runs are scored on.",
            autocompletion=complete_tasks,
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Numbers of shots whose mean is the score, separated by commas. Default: all. The paper uses 8."
        ),
    ] = None,
    loss: Annotated[
        bool, typer.Option("--loss", help="Write the final training loss. Default: the score is written.")
    ] = False,
) -> None:
    """Make the missing runs of a sweep, and write its points."""
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
    """Fit the law to a sweep, and test each size against the law of the others."""
    from mm1.scaling.fit import fit_file
    from mm1.scaling.law_table import fit_table

    output().print(fit_table(fit_file(points, leave_out)))


@app.command()
def plot(
    points: Points,
    to: Annotated[Path, typer.Option(help="SVG file to write.")] = Path("law.svg"),
    leave_out: LeaveOut = False,
) -> None:
    """Draw a sweep and the law that is fitted to it."""
    from mm1.scaling.fit import fit_file
    from mm1.scaling.plot import write_plot

    write_plot(fit_file(points, leave_out), to)
    console.print(f"the figure: {to}")


@app.command()
def budget(
    models: Recipes,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 64,
    gpu: Annotated[str, typer.Option(help="Kind of the GPUs: a100-40, a100-80, h100, h200, b200, ...")] = "h100",
    mfu: Annotated[
        float | None,
        typer.Option(help="Share of the GPUs' peak FLOP/s that training reaches. Default: 0.4, which is not measured."),
    ] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(help="Measured tokens per second of one GPU, instead of --mfu. Default: --mfu.")
    ] = None,
    document_length: Annotated[
        int | None, typer.Option(min=1, help="Mean number of tokens of a document. Default: the whole sequence.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of a GPU hour, in your currency. Default: no cost is shown.")
    ] = None,
    set_: Set = None,
) -> None:
    """Show what a training takes: FLOPs, memory per GPU, time, communication and cost.

    The fastest layout that fits into memory is chosen, and printed as settings for mm1 pretrain.
    """
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


@app.command()
def rehearse(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a packaged recipe, such as mm1-3b, or a YAML file.",
            autocompletion=complete_recipe,
            metavar="RECIPE",
        ),
    ],
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 64,
    gpu: Annotated[str, typer.Option(help="Kind of the GPUs: a100-40, a100-80, h100, h200, b200, ...")] = "h100",
    rank: Annotated[int, typer.Option(min=0, help="Rank to rehearse; the first has the most of everything.")] = 0,
    allow_stalls: Annotated[
        bool,
        typer.Option(
            "--allow-stalls", help="Exit with 0 though the host waits for the GPU in a step. Default: with 1."
        ),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON. Default: tables.")] = False,
    set_: Set = None,
) -> None:
    """Make one training step without a GPU: memory, communication and stalls of one rank.

    The step is made by the code that trains, on tensors without contents and ranks that are not there. The exit code is
    1 if the GPU has too little memory, or the host waits for it in a step. Experts that are spread over ranks cost one
    wait per sparse layer and pass, which doesn't count.
    """
    import json

    from mm1.recipe import load_recipe
    from mm1.rehearse.rehearsal import rehearse as make_rehearsal
    from mm1.rehearse.rehearsal_table import rehearsal_tables, verdict
    from mm1.scaling.gpus import gpu as gpu_named

    made = make_rehearsal(load_recipe(model, set_ or []), gpu_named(gpu), gpus, rank)
    if json_:
        typer.echo(json.dumps(made.as_json(), indent=2))
    else:
        for table in rehearsal_tables(made):
            output().print(table)
        if made.compiled is not None:
            breaks = ", ".join(f"{reason} ({count})" for reason, count in made.compiled.breaks.items()) or "none"
            typer.echo(f"compiled blocks: {made.compiled.graphs} graphs; graph breaks: {breaks}")
        elif made.recipe.train.compile:
            typer.echo("compiled blocks: not rehearsed, since the recipe starts from pre-trained parts")
        typer.echo(verdict(made))
    if made.too_large or (made.needless_stalls and not allow_stalls):
        raise typer.Exit(1)
