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
    seed: Annotated[int, typer.Option(help="Seed of the choice of items and shots and of the bootstrap.")] = 0,
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
    first: Annotated[Path, typer.Argument(help="Directory of a run.")],
    second: Annotated[Path, typer.Argument(help="Directory of another run, scored on the same items.")],
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap and of the permutation test.")] = 0,
) -> None:
    """Test which differences between two runs' scores are significant.

    The tests are paired by item and corrected for their number.
    """
    from mm1.evaluate.compare import compare_runs, comparison_table

    output().print(comparison_table(compare_runs(first, second, seed=seed), first.name, second.name))


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
