"""The command line: one command for each job, no logic of its own.

Exit codes: 0 done; 2 the user's mistake, one sentence on standard error; 130 stopped by Ctrl-C and 75 ("try
again later") by SIGTERM, as schedulers send it before they take a machine away: the same command goes on.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from mm1.cli import data, scale, study
from mm1.cli.options import Set, parse_options, parse_shots, split_commas
from mm1.cli.tiles import show_tiles
from mm1.errors import Stopped, UserError
from mm1.places import MODEL_HELP
from mm1.progress import console
from mm1.ranks import is_first_rank


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; Ctrl-C outside of training (which saves first) stops it like everything else."""
        from transformers.utils import logging

        logging.disable_progress_bar()  # the house has its own
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped from None


app = typer.Typer(
    cls=_Group,
    help="MM1 (arXiv 2403.09611): build, ablate, train, evaluate and use multimodal language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(scale.app, name="scale")
app.add_typer(study.app, name="study")
model = typer.Typer(help="Models: what they are made of.", no_args_is_help=True)
app.add_typer(model, name="model")
app.command()(show_tiles)

RunOption = Annotated[Path | None, typer.Option("--to", help="The run's directory; default runs/NAME.")]
RunArgument = Annotated[Path, typer.Argument(help="A run's directory.")]


@app.command()
def demo(
    run: Annotated[Path, typer.Option("--to", help="The run's directory.")] = Path("runs/demo"),
    set_: Set = None,
) -> None:
    """Build corpora, train a small MM1 on them, score it and write a report: ten minutes on two CPU cores."""
    from mm1.demo import run_demo

    report = run_demo(run, set_ or [])
    console.print(f"[bold]the report:[/] {report.resolve().as_uri()}")


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or a YAML file.")],
    run: RunOption = None,
    set_: Set = None,
    score: Annotated[bool, typer.Option("--evaluate", help="Then score it as the recipe says.")] = False,
) -> None:
    """Train a model; on an existing run, go on from its last checkpoint."""
    from mm1.evaluate.during import scorer_during_training
    from mm1.recipe import load_recipe
    from mm1.train.pretrain import pretrain as train

    loaded = load_recipe(recipe, set_ or [])
    directory = run or Path("runs") / loaded.name
    model = train(loaded, directory, scorer_during_training(loaded.evaluate))
    console.print(f"the model: {model}")
    if score:
        evaluate(str(directory))


@app.command(context_settings={"ignore_unknown_options": True})
def launch(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(help="Any mm1 command with its options, such as pretrain RECIPE.")],
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of a machine, one rank each.")] = 0,
    tasks_per_node: Annotated[int | None, typer.Option(min=1, help="Ranks of a machine, if not one a GPU.")] = None,
    cpus_per_task: Annotated[int, typer.Option(min=1, help="Cores of a rank, and its threads.")] = 1,
    time: Annotated[int, typer.Option(min=1, help="Time limit in minutes.")] = 60,
    grace: Annotated[int, typer.Option(min=1, help="Seconds before the limit to save and requeue.")] = 120,
    requeues: Annotated[int, typer.Option(min=0, help="How often to go on after the limit.")] = 20,
    partition: Annotated[str | None, typer.Option(help="SLURM's partition.")] = None,
    sbatch: Annotated[list[str] | None, typer.Option(help="Another option of sbatch, as in account=vision.")] = None,
    setup: Annotated[list[str] | None, typer.Option(help="A shell line to run before, as in 'module load x'.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Run it on this machine, without SLURM.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script for sbatch and stop.")] = False,
) -> None:
    """Run a command as a SLURM job; logs go to RUN/slurm."""
    from mm1.launch import Resources, run_here, sbatch_script, submit
    from mm1.train.run_directory import SCHEDULER_LOGS

    run = _run_of(context, command)
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
        console.print(f"job {submit(command, logs, resources)} is queued; its logs will be in {logs}")


def _run_of(context: typer.Context, command: list[str]) -> Path:
    """Return the directory of the run that a command is about; its options and recipe are checked on the way."""
    from mm1.recipe import EncoderRecipe, Recipe, RunRecipe, load_recipe

    root: Any = context.find_root()
    name, parser, arguments = root.command.resolve_command(root, command)
    settings = parser.make_context(name, list(arguments), parent=root).params
    if "run" not in settings:
        raise UserError(f"mm1 {name} works on no run: launch a command that does, such as pretrain or evaluate")
    if "recipe" not in settings:
        return Path(settings["run"])
    schema: type[RunRecipe] = EncoderRecipe if name == "encoder" else Recipe
    recipe = load_recipe(settings["recipe"], settings["set_"] or [], schema=schema)
    return settings["run"] or Path("runs") / recipe.name


@app.command()
def encoder(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or a YAML file.")],
    run: RunOption = None,
    set_: Set = None,
) -> None:
    """Train an image encoder (CLIP, SigLIP, AIM); on an existing run, go on from its last checkpoint."""
    from mm1.encoder.pretrain import pretrain_encoder
    from mm1.recipe import EncoderRecipe, load_recipe

    loaded = load_recipe(recipe, set_ or [], schema=EncoderRecipe)
    model = pretrain_encoder(loaded, run or Path("runs") / loaded.name)
    console.print(f"the encoder: {model}")


@app.command("score-encoder")
def score_encoder(run: RunArgument, set_: Set = None) -> None:
    """Score an image encoder on held-out pictures: retrieval, zero-shot classes, linear probe."""
    from mm1.encoder.evaluate import result_table
    from mm1.encoder.evaluate import score_encoder as score

    output().print(result_table(score(run, set_)))


@app.command()
def sft(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or a YAML file.")],
    run: RunOption = None,
    set_: Set = None,
) -> None:
    """Fine-tune a trained model on conversations; on an existing run, go on from its last checkpoint."""
    from mm1.recipe import load_recipe
    from mm1.train.sft import fine_tune

    loaded = load_recipe(recipe, set_ or [])
    model = fine_tune(loaded, run or Path("runs") / loaded.name)
    console.print(f"the model: {model}")


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help=MODEL_HELP)],
    tasks: Annotated[str | None, typer.Option(help="Names or files, with commas; default: the run's recipe's.")] = None,
    shots: Annotated[str | None, typer.Option(help="Numbers with commas; default: the run's recipe's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items per task, at most.")] = None,
    seed: Annotated[int, typer.Option(help="Of items, shots and resamples.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="How many draws of shots to average over.")] = 1,
    detailed_shots: Annotated[
        int | None, typer.Option(min=0, help="Only the last so many shots, and the query, are cut into sub-images.")
    ] = None,
    plain: Annotated[
        bool | None, typer.Option("--plain/--chat", help="How a chat model is asked; default: in conversations.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Directory of the results; default: `scores` in the run's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Prompts per forward pass: changes the speed, not the scores.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), or a torch device.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto (float32 on CPU, bfloat16 on GPU), float32, bfloat16.")] = "auto",
) -> None:
    """Score a model on tasks, with pictures in the shots; stopped, the same command goes on."""
    from mm1.evaluate.run import evaluate_run
    from mm1.evaluate.score_table import score_table
    from mm1.evaluate.settings import EvaluationSettings

    given = {
        "tasks": split_commas(tasks) if tasks else None,
        "shots": parse_shots(shots) if shots else None,
        "limit": limit,
        "seed": seed,
        "draws": draws,
        "detailed_shots": detailed_shots,
        "plain": plain,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
    }
    settings = EvaluationSettings.model_validate({key: value for key, value in given.items() if value is not None})
    results = evaluate_run(run, settings=settings, to=to)
    output().print(score_table(results))


@app.command()
def report(run: RunArgument) -> None:
    """Write RUN/report.html: curves, scores, pictures with the model's words; also while the run goes on."""
    from mm1.report import write_report

    console.print(f"the report: {write_report(run).resolve().as_uri()}")


@app.command()
def caption(
    run: Annotated[str, typer.Argument(help=MODEL_HELP)],
    image: Annotated[Path, typer.Argument(help="A picture.")],
    question: Annotated[str | None, typer.Option(help="Answer this question instead of captioning.")] = None,
) -> None:
    """Put a picture into words, or answer a question on it."""
    from mm1.evaluate.caption import caption_image

    typer.echo(caption_image(run, image, question))


@app.command()
def tasks() -> None:
    """List the packaged tasks with what each needs."""
    from mm1.evaluate.task_table import task_table

    output().print(task_table())


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run's directory.")],
    second: Annotated[Path, typer.Argument(help="Another one, scored on the same items.")],
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
) -> None:
    """Say which differences between two runs' scores are real (paired tests, corrected for their number)."""
    from mm1.evaluate.compare import compare_runs, comparison_table

    output().print(comparison_table(compare_runs(first, second, seed=seed), first.name, second.name))


@model.command("show")
def model_show(
    names: Annotated[list[str], typer.Argument(help="Packaged recipes, such as mm1-3b, or YAML files.")],
    set_: Set = None,
    image: Annotated[
        str | None, typer.Option(help="Also what a picture of this size costs in each mode, as in 1344x1344.")
    ] = None,
) -> None:
    """Show parameters by part, memory and FLOPs; takes no memory, whatever the size."""
    from mm1.model.resolve import resolve_models
    from mm1.model.shape import vocabulary_size
    from mm1.recipe import load_recipe
    from mm1.scaling.description import describe
    from mm1.scaling.description_table import description_table
    from mm1.scaling.picture_costs import costs_table, parse_size, picture_costs

    for name in names:
        recipe = resolve_models(load_recipe(name, set_ or []), weights=False)
        model, sizes = recipe.model, (vocabulary_size(recipe), recipe.data.sequence_length)
        output().print(description_table(describe(name, model, *sizes)))
        if image is not None:
            width, height = parse_size(image)
            costs = picture_costs(width, height, model, *sizes)
            output().print(costs_table(name, width, height, costs))


def output() -> Console:
    """Return a console on standard output, for what a command was asked for; only the first rank speaks."""
    return Console(highlight=False, quiet=not is_first_rank())


def main() -> None:
    """Run the command line; see the module's docstring for the exit codes."""
    try:
        app()
    except UserError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        console.print(f"[bold red]error:[/] {escape(str(error))}: free some space and run the same command again")
        sys.exit(2)
    except Stopped as stopped:
        console.print("[yellow]stopped; the same command goes on from where it was[/]")
        sys.exit(os.EX_TEMPFAIL if stopped.signal_number == signal.SIGTERM else 130)
