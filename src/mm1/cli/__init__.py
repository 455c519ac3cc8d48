"""The command line: one command for each job, no logic of its own.

Exit codes: 0 done; 2 the user's mistake, one sentence on standard error; 130 stopped by Ctrl-C and 75 ("try
again later") by SIGTERM, as schedulers send it before they take a machine away: the same command goes on.
"""

from __future__ import annotations

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
from mm1.cli.options import Set, parse_shots, split_commas
from mm1.errors import Stopped, UserError
from mm1.progress import console


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
    from mm1.recipe import load_recipe
    from mm1.train.pretrain import pretrain as train

    loaded = load_recipe(recipe, set_ or [])
    directory = run or Path("runs") / loaded.name
    model = train(loaded, directory)
    console.print(f"the model: {model}")
    if score:
        evaluate(directory)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's directory, or the folder of a model.")],
    tasks: Annotated[str | None, typer.Option(help="Names or files, with commas; default: the run's recipe's.")] = None,
    shots: Annotated[str | None, typer.Option(help="Numbers with commas; default: the run's recipe's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items per task, at most.")] = None,
    seed: Annotated[int, typer.Option(help="Of items, shots and resamples.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="How many draws of shots to average over.")] = 1,
) -> None:
    """Score a model on tasks, with pictures in the shots."""
    from mm1.evaluate.run import evaluate_run
    from mm1.evaluate.table import score_table

    results = evaluate_run(
        run, split_commas(tasks) if tasks else None, parse_shots(shots) if shots else None, limit, seed
    )
    output().print(score_table(results))


@app.command()
def report(run: RunArgument) -> None:
    """Write RUN/report.html: curves, scores, pictures with the model's words; also while the run goes on."""
    from mm1.report import write_report

    console.print(f"the report: {write_report(run).resolve().as_uri()}")


@app.command()
def caption(
    run: Annotated[Path, typer.Argument(help="A run's directory, or the folder of a model.")],
    image: Annotated[Path, typer.Argument(help="A picture.")],
    question: Annotated[str | None, typer.Option(help="Answer this question instead of captioning.")] = None,
) -> None:
    """Put a picture into words, or answer a question on it."""
    from mm1.evaluate.caption import caption_image

    typer.echo(caption_image(run, image, question))


@app.command()
def tasks() -> None:
    """List the packaged tasks with what each needs."""
    from mm1.evaluate.table import task_table

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
    names: Annotated[list[str], typer.Argument(help="Presets, such as mm1-3b; or a packaged recipe, or a YAML file.")],
    set_: Set = None,
) -> None:
    """Show parameters by part, memory and FLOPs; takes no memory, whatever the size."""
    from mm1.model.presets import PRESETS, describe
    from mm1.model.show import description_table
    from mm1.recipe import load_recipe, packaged_recipes

    for name in names:
        is_recipe = name in packaged_recipes() or Path(name).suffix in (".yaml", ".yml") or set_
        if is_recipe and name not in PRESETS:
            recipe = load_recipe(name, set_ or [])
            described = describe(name, recipe.model, recipe.tokenizer.vocab_size, recipe.data.sequence_length)
        else:
            described = describe(name)
        output().print(description_table(described))


def output() -> Console:
    """Return a console on standard output, for what a command was asked for; only the first rank speaks."""
    return Console(highlight=False, quiet=os.environ.get("RANK", "0") != "0")


def main() -> None:
    """Run the command line; see the module's docstring for the exit codes."""
    try:
        app()
    except UserError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except Stopped as stopped:
        console.print("[yellow]stopped; the same command goes on from where it was[/]")
        sys.exit(os.EX_TEMPFAIL if stopped.signal_number == signal.SIGTERM else 130)
