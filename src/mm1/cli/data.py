"""`mm1 data`: corpora and plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.cli.options import Engine, RecipeArgument, Set, Workers, parse_options, split_commas
from mm1.errors import UserError
from mm1.places import MODEL_HELP
from mm1.progress import console

app = typer.Typer(help="Build, clean and inspect corpora, and plan trainings on them.", no_args_is_help=True)

AcceptLosses = Annotated[
    bool,
    typer.Option(
        "--accept-losses",
        help="Keep a corpus that lacks most records or all pictures of its files. Default: it is put aside.",
    ),
]
MaxLosses = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of the records that may be left out before --accept-losses is needed."),
]
Force = Annotated[bool, typer.Option("--force", help="Build the corpus again if it exists. Default: it is kept.")]

_WHAT = "A split, as corpus/split or as its directory, or a directory of a run, whose plan is shown."


@app.command()
def build(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Corpora: scenes, easy-vqa, openmoji, pages, text, tuxpaint, ... With --from: files, folders or "
            "patterns."
        ),
    ],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Build one corpus from your files, which have this format: webdataset, obelics, captions, llava, ... "
            "Default: the named corpora are built.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Directory of the corpus. Default: $MM1_DATA/NAME, else data/NAME.")
    ] = None,
    split: Annotated[str, typer.Option(help="With --from: name of the split to build.")] = "train",
    licence: Annotated[str, typer.Option(help="With --from: licence of the files, for people to read.")] = "not stated",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change an option of the corpus or format, as in count=2000. May be repeated. Default: no change.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="With --from: take only the first N documents, and read no further. Default: all."),
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place",
            help="With --from: leave pictures and long texts in the files and store where they lie. Default: the "
            "corpus holds all.",
        ),
    ] = False,
    force: Force = False,
    max_losses: MaxLosses = 0.5,
    accept_losses: AcceptLosses = False,
    workers: Workers = None,
    engine: Engine = "processes",
) -> None:
    """Build named corpora from what package indexes ship, or one corpus from your files."""
    from mm1.corpora import build_corpus
    from mm1.data.build import build_from
    from mm1.look.corpus import corpus_table

    options = parse_options(set_)
    if from_ is not None:
        if to is None:
            raise UserError("--from needs --to: say where the corpus is to be, such as --to data/mine")
        info = build_from(
            from_,
            names,
            to,
            split=split,
            workers=workers,
            options=options,
            licence=licence,
            force=force,
            engine=engine,
            max_losses=None if accept_losses else max_losses,
            limit=limit,
            in_place=in_place,
        )
        console.print(corpus_table(info))
        return
    if in_place:
        raise UserError("--in-place is for --from: corpora by name are made, not found in files of yours")
    if limit is not None:
        raise UserError("--limit is for --from: corpora by name have options of their own (--set count=N)")
    if to is not None and len(names) > 1:
        raise UserError("--to takes one corpus at a time: name one, or leave --to out")
    for name in names:
        console.print(corpus_table(build_corpus(name, to, force=force, **options)))


@app.command()
def collect(
    recipe: RecipeArgument,
    local: Annotated[
        Path | None,
        typer.Option(help="Directory with a folder of files for each split, such as DIR/vqav2. Default: none."),
    ] = None,
    set_: Set = None,
    max_losses: MaxLosses = 0.5,
    accept_losses: AcceptLosses = False,
    workers: Workers = None,
) -> None:
    """Build the corpora that a recipe describes, from local files or else from the Hub."""
    from mm1.data.collect import collect as build_all
    from mm1.recipe import load_recipe

    missing = build_all(load_recipe(recipe, set_ or []), local, workers, None if accept_losses else max_losses)
    if missing:
        raise UserError(
            f"{len(missing)} sources have neither a local copy nor a dataset of the Hub: {', '.join(missing)}: put "
            "their files into --local DIR, or leave them out of the recipe"
        )


@app.command()
def recaption(
    split: Annotated[str, typer.Argument(help="Split whose pictures are captioned, such as scenes/train.")],
    model: Annotated[str, typer.Option(help=f"The model that captions. {MODEL_HELP}")],
    to: Annotated[Path, typer.Option(help="Directory of the new corpus, such as data/scenes-synthetic.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Caption only the first N documents. Default: all.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes. Each loads the model.")] = 1,
    force: Force = False,
) -> None:
    """Build a corpus of synthetic captions, which a model writes for the pictures of a split."""
    from mm1.evaluate.recaption import recaption as build_captions
    from mm1.look.corpus import corpus_table

    console.print(corpus_table(build_captions(split, model, to, limit=limit, workers=workers, force=force)))


@app.command()
def clean(
    corpus: Annotated[Path, typer.Argument(help="Directory of the corpus, such as data/web.")],
    to: Annotated[
        Path | None, typer.Option(help="Directory of the clean corpus. Default: none, so give it or --in-place.")
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place",
            help="Write masks beside the splits, which recipes name as corpus/split@clean. Default: a corpus is "
            "written.",
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="With --in-place: name of the masks.")] = "clean",
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="With --in-place: switch a step off in the masks that are there, without reading the corpus. May be "
            "repeated. Default: none."
        ),
    ] = None,
    steps: Annotated[
        Path | None, typer.Option(help="YAML file with the list of steps. Default: the paper's steps.")
    ] = None,
    splits: Annotated[str | None, typer.Option(help="Splits to clean, separated by commas. Default: all.")] = None,
    memory: Annotated[str, typer.Option(help="Memory limit of the steps that compare all documents.")] = "2GB",
    workers: Workers = None,
    engine: Engine = "processes",
) -> None:
    """Clean a corpus into another one, or by a mask beside it, and count what each step drops."""
    from mm1.clean import DEFAULT_STEPS, clean, clean_in_place, read_steps
    from mm1.clean.masking import without_steps
    from mm1.look.cleaning import cleaning_table

    if in_place == (to is not None):
        raise UserError("give --to DIR for a clean copy, or --in-place for masks beside the splits")
    if without and not in_place:
        raise UserError("--without is for masks: give --in-place")
    names = split_commas(splits) if splits else None
    if without:
        for reference in without_steps(corpus, name, without, names).values():
            console.print(f"in recipes: {reference}")
        return
    chosen = DEFAULT_STEPS if steps is None else read_steps(steps)
    if to is None:
        info = clean_in_place(corpus, chosen, name=name, splits=names, workers=workers, memory=memory, engine=engine)
        console.print(cleaning_table(info))
        console.print("in recipes: " + ", ".join(f"{corpus.name}/{split}@{name}" for split in info["splits"]))
        return
    info = clean(corpus, to, chosen, splits=names, workers=workers, memory=memory, engine=engine)
    console.print(cleaning_table(info))


@app.command()
def show(
    what: Annotated[str, typer.Argument(help=_WHAT)],
    limit: Annotated[int, typer.Option(min=1, help="Number of documents or sequences to show.")] = 5,
    first: Annotated[int, typer.Option(min=0, help="With a plan: number of the first sequence to show.")] = 0,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the pictures to this file. Default: text in the terminal.")
    ] = None,
) -> None:
    """Show the first documents of a split, or the sequences of a plan."""
    from mm1.data.corpus import open_split
    from mm1.look.documents import show_text, write_html
    from mm1.look.sequences import show_sequences, write_sequences
    from mm1.train.prepare import open_sequences

    if (Path(what) / "plan").is_dir():
        dataset = open_sequences(Path(what))
        numbers = range(first, min(first + limit, len(dataset)))
        if html is None:
            show_sequences(dataset, numbers)
        else:
            write_sequences(dataset, numbers, html, f"{what}: sequences {numbers.start} to {numbers.stop - 1}")
    else:
        documents = open_split(what)
        if html is None:
            show_text(documents, limit)
        else:
            write_html(documents, html, documents.name, limit)
    if html is not None:
        console.print(f"the page: {html.resolve().as_uri()}")


@app.command()
def stats(
    what: Annotated[str, typer.Argument(help=_WHAT)],
) -> None:
    """Show histograms of lengths and of images per document; of a plan, how its sequences are filled."""
    from mm1.data.corpus import open_split
    from mm1.look.stats import show_plan_stats, show_stats
    from mm1.plan.plan import Plan

    if (Path(what) / "plan").is_dir():
        show_plan_stats(Plan(Path(what) / "plan"))
    else:
        show_stats(open_split(what))


@app.command()
def plan(
    recipe: RecipeArgument,
    to: Annotated[
        Path | None,
        typer.Option(help="Keep the plan in this directory of a run, whose training then uses it. Default: not kept."),
    ] = None,
    set_: Set = None,
    workers: Workers = None,
    engine: Engine = "processes",
) -> None:
    """Plan a training without starting it.

    The plan shows which documents the training would see, how often, and how full its sequences would be.
    """
    from mm1.look.plan import plan_table
    from mm1.recipe import load_recipe
    from mm1.train.prepare import make_plan

    console.print(plan_table(make_plan(load_recipe(recipe, set_ or []), to, workers, engine)))
