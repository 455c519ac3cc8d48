"""`mm1 pretrain`, `mm1 encoder` and `mm1 sft`: training runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mm1.cli.console import output
from mm1.cli.evaluate import evaluate
from mm1.cli.options import RecipeArgument, Set
from mm1.progress import console

if TYPE_CHECKING:
    from mm1.recipe import Recipe

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the recipe in full, the plan and what the training takes on this machine, and stop. Default: it "
        "trains.",
    ),
]
Score = Annotated[
    bool, typer.Option("--evaluate", help="Score the model afterwards, as the recipe says. Default: it is not.")
]
RunOption = Annotated[Path | None, typer.Option("--to", help="Directory of the run. Default: runs/NAME.")]


def pretrain(
    recipe: RecipeArgument,
    run: RunOption = None,
    set_: Set = None,
    score: Score = False,
    dry: DryRun = False,
) -> None:
    """Pre-train a model.

    If the run exists, its training resumes from the last checkpoint.
    """
    from mm1.recipe import load_recipe

    loaded = load_recipe(recipe, set_ or [])
    if dry:
        _print_dry_run(loaded)
        return
    from mm1.evaluate.during import check_tasks, scorer_during_training
    from mm1.train.pretrain import pretrain as train

    if score:
        check_tasks(loaded.evaluate.tasks)
    directory = run or Path("runs") / loaded.name
    model = train(loaded, directory, scorer_during_training(loaded.evaluate))
    console.print(f"the model: {model}")
    if score:
        evaluate(str(directory))


def encoder(recipe: RecipeArgument, run: RunOption = None, set_: Set = None) -> None:
    """Train an image encoder (CLIP, SigLIP or AIM).

    If the run exists, its training resumes from the last checkpoint.
    """
    from mm1.encoder.pretrain import pretrain_encoder
    from mm1.recipe import EncoderRecipe, load_recipe

    loaded = load_recipe(recipe, set_ or [], schema=EncoderRecipe)
    model = pretrain_encoder(loaded, run or Path("runs") / loaded.name)
    console.print(f"the encoder: {model}")


def sft(
    recipe: RecipeArgument, run: RunOption = None, set_: Set = None, score: Score = False, dry: DryRun = False
) -> None:
    """Fine-tune a trained model on conversations.

    If the run exists, its training resumes from the last checkpoint.
    """
    from mm1.recipe import load_recipe
    from mm1.train.sft import check_fine_tuning, fine_tune

    loaded = load_recipe(recipe, set_ or [])
    if dry:
        check_fine_tuning(loaded)
        _print_dry_run(loaded)
        return
    if score:
        from mm1.evaluate.during import check_tasks

        check_tasks(loaded.evaluate.tasks)
    directory = run or Path("runs") / loaded.name
    model = fine_tune(loaded, directory)
    console.print(f"the model: {model}")
    if score:
        evaluate(str(directory))


def _print_dry_run(recipe: Recipe) -> None:
    from mm1.dry_run import dry_run

    typer.echo(recipe.to_yaml())
    for part in dry_run(recipe):
        output().print(part)
