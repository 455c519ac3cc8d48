"""`mm1 launch`: any other command as a SLURM job."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer

from mm1.cli.addresses import check_on_disk
from mm1.cli.options import parse_options
from mm1.errors import UserError
from mm1.progress import console


def launch(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(help="An mm1 command with its options, such as pretrain RECIPE.")],
    nodes: Annotated[int, typer.Option(min=1, help="Number of machines.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each machine, with one rank for each.")] = 0,
    tasks_per_node: Annotated[
        int | None, typer.Option(min=1, help="Ranks on each machine. Default: one for each GPU, at least one.")
    ] = None,
    cpus_per_task: Annotated[int, typer.Option(min=1, help="CPU cores of each rank, and threads that it uses.")] = 1,
    time: Annotated[int, typer.Option(min=1, help="Time limit of the job in minutes.")] = 60,
    grace: Annotated[
        int, typer.Option(min=1, help="Seconds before the time limit at which the command is told to save.")
    ] = 120,
    requeues: Annotated[
        int, typer.Option(min=0, help="How often the job may reach its time limit and continue in a new job.")
    ] = 20,
    partition: Annotated[str | None, typer.Option(help="SLURM partition. Default: the cluster's default.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="Pass another option to sbatch, as in account=vision. May be repeated. Default: none."),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(
            help="Run a line of shell before the command, as in 'module load cuda'. May be repeated. Default: none."
        ),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run the job on this machine, without SLURM. Default: SLURM runs it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script for sbatch and exit. Default: it is submitted.")
    ] = False,
) -> None:
    """Run an mm1 command as a SLURM job.

    The logs go to RUN/slurm. A job that reaches its time limit saves and is queued again until the command is done.
    """
    run = _run_of(context, command)

    from mm1.launch import Resources, run_here, sbatch_script, submit
    from mm1.train.run_directory import SCHEDULER_LOGS

    resources = Resources(
        name=f"mm1-{run.name}",
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        tasks_per_node=tasks_per_node,
        cpus_per_task=cpus_per_task,
        minutes=time,
        grace=grace,
        requeues=requeues,
        partition=partition,
        sbatch=parse_options(sbatch, "--sbatch"),
        setup=tuple(setup or ()),
    )
    logs = run / SCHEDULER_LOGS
    if dry_run:
        typer.echo(sbatch_script(command, logs, resources))
    elif local:
        run_here(command, logs, resources)
    else:
        console.print(f"job {submit(command, logs, resources)} is queued; its logs go to {logs}")


def _run_of(context: typer.Context, command: list[str]) -> Path:
    """Return the directory of the run that a command is about; its options and recipe are checked on the way."""
    from mm1.recipe import EncoderRecipe, Recipe, RunRecipe, load_recipe

    root: Any = context.find_root()
    parser = root.command
    try:
        name, parser, arguments = parser.resolve_command(root, command)
        settings = parser.make_context(name, list(arguments), parent=root).params
    except Exception as error:
        _suggest(error, [*context.command.params, *parser.params])
        raise
    if "run" not in settings:
        raise UserError(f"mm1 {name} works on no run: launch a command that does, such as pretrain or evaluate")
    if "recipe" not in settings:
        return Path(settings["run"])
    schema: type[RunRecipe] = EncoderRecipe if name == "encoder" else Recipe
    recipe = load_recipe(settings["recipe"], settings["set_"] or [], schema=schema)
    check_on_disk(settings["run"] and Path(settings["run"]))
    return settings["run"] or Path("runs") / recipe.name


def _suggest(error: Any, parameters: list[Any]) -> None:
    """Let an error about a misspelt option name the nearest ones of both commands: it may be meant for either."""
    if hasattr(error, "possibilities"):
        options = [option for parameter in parameters for option in parameter.opts]
        error.possibilities = difflib.get_close_matches(error.option_name, options)
