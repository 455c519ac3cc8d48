"""`mm1 evaluate`, `score-encoder`, `compare`, `report` and `tasks`: scores, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.cli.complete import complete_tasks
from mm1.cli.console import output
from mm1.cli.options import Quantize, Set, parse_shots, split_commas
from mm1.places import MODEL_HELP
from mm1.progress import console

RunArgument = Annotated[Path, typer.Argument(help="Directory of a run.")]


def evaluate(
    run: Annotated[str, typer.Argument(help=f"The model to score. {MODEL_HELP}")],
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks, by name or file, separated by commas. Default: those of the run's recipe.",
            autocompletion=complete_tasks,
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Numbers of shots, separated by commas, such as 0,4,8. Default: those of the run's recipe, else 0,4,8."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most items of each task. Default: the run's recipe's limit, else all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of items and shots and of the bootstrap.")] = 0,
    draws: Annotated[
        int, typer.Option(min=1, help="How many times shots are drawn. The score is the mean over the draws.")
    ] = 1,
    detailed_shots: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How many shots, the last ones, are cut into sub-images as the query is. The others stay whole. "
            "Default: as the run's recipe says, else all shots.",
        ),
    ] = None,
    plain: Annotated[
        bool | None,
        typer.Option(
            "--plain/--chat",
            help="Ask a chat model as a pre-trained model is asked, or in conversations. Default: as the run's recipe "
            "says, else in conversations.",
        ),
    ] = None,
    right_answers: Annotated[
        bool | None,
        typer.Option(
            "--right-answers/--no-right-answers",
            help="Also compute the log-likelihood of each right answer, which shows more than a coarse score. Default: "
            "as the run's recipe says, else not.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the results. Default: scores in the directory of the run or model; for a Hub model, "
            "scores/OWNER--NAME."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Prompts of a forward pass. It changes the speed and not the scores. Default: as the run's recipe "
            "says, else 64.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="A torch device, or auto: a GPU if there is one, else the CPU.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: bfloat16 on a GPU, float32 on a CPU.")
    ] = "auto",
    quantize: Quantize = None,
    ranks_per_model: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of ranks of torchrun that hold one model between them, for a model that one GPU can't hold. "
            "It changes no score in float32.",
        ),
    ] = 1,
) -> None:
    """Score a model on tasks, with pictures in the few-shot prompts.

    If scoring was stopped, the same command resumes it.
    """
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
        "right_answers": right_answers,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
        "quantize": quantize,
        "ranks_per_model": ranks_per_model,
    }
    settings = EvaluationSettings.model_validate({key: value for key, value in given.items() if value is not None})
    results = evaluate_run(run, settings=settings, to=to)
    output().print(score_table(results))


def score_encoder(run: RunArgument, set_: Set = None) -> None:
    """Score an image encoder on held-out pictures: retrieval, zero-shot classification, linear probe."""
    from mm1.encoder.evaluate import result_table
    from mm1.encoder.evaluate import score_encoder as score

    output().print(result_table(score(run, set_)))


def compare(
    first: Annotated[
        str,
        typer.Argument(help="Directory of a run; or of several runs of one recipe, separated by commas."),
    ],
    second: Annotated[
        str | None,
        typer.Argument(
            help="Directory of another run, or of several, scored on the same items. Needed unless --paper is given. "
            "Default: none."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap and of the permutation test.")] = 0,
    paper: Annotated[
        str | None,
        typer.Option(
            help="Print the paper's scores of this model beside the first run's, for the same tasks and shots, such as "
            "mm1-3b or mm1-7b-chat. Default: they are not printed."
        ),
    ] = None,
) -> None:
    """Test which differences between runs' scores are significant, or put the paper's scores beside a run's.

    Two runs are two models: the test says whether these models differ. Several runs a side, with other seeds, test
    whether their recipes differ. The tests are corrected for their number.
    """
    from mm1.cli.addresses import check_on_disk
    from mm1.errors import UserError
    from mm1.evaluate.beside_paper import paper_table
    from mm1.evaluate.compare import compare_runs, comparison_table
    from mm1.evaluate.compare_recipes import compare_recipes

    ours, theirs = ([Path(name) for name in split_commas(side or "")] for side in (first, second))
    for run in (*ours, *theirs):
        check_on_disk(run)
    if not theirs and paper is None:
        raise UserError("compare: one side is missing: name another run, or a model of the paper with --paper")
    if theirs:
        pair = len(ours) == len(theirs) == 1
        rows = compare_runs(ours[0], theirs[0], seed=seed) if pair else compare_recipes(ours, theirs, seed=seed)
        names = [side[0].name if pair else f"{side[0].name}, ..." for side in (ours, theirs)]
        output().print(comparison_table(rows, *names))
    for run in ours if paper is not None else ():
        table, missing = paper_table(run, str(paper))
        if table is not None:
            output().print(table)
        if missing is not None:
            output().print(missing)


def headline(
    runs: Annotated[
        list[Path], typer.Argument(help="Directories of at least three runs with other seeds, all scored.")
    ],
    to: Annotated[Path, typer.Option(help="JSON file of the figures, such as docs/results/demo.json.")],
    page: Annotated[
        Path | None,
        typer.Option(help="Markdown page that gets the table, between its marks. Default: the table is printed."),
    ] = None,
) -> None:
    """Write a recipe's scores over several seeds: mean, range, and intervals that count seeds, draws and items."""
    from mm1.evaluate.headline import headline as figures
    from mm1.evaluate.headline import headline_table, write_headline

    content = figures(runs)
    write_headline(content, to, page)
    if page is None:
        output().print(headline_table(content), soft_wrap=True, markup=False, highlight=False)
    console.print(f"the figures: {to}")


def report(run: RunArgument) -> None:
    """Write RUN/report.html: the run's curves, its scores, and pictures with the model's answers.

    The run may still be training.
    """
    from mm1.report import write_report

    console.print(f"the report: {write_report(run).resolve().as_uri()}")


def tasks() -> None:
    """List the packaged tasks, what each asks and which data it needs."""
    from mm1.evaluate.task_table import task_table

    output().print(task_table())
