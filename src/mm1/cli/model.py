"""`mm1 model`: what models are made of."""

from __future__ import annotations

from typing import Annotated

import typer

from mm1.cli.console import output
from mm1.cli.options import Recipes, Set

app = typer.Typer(help="Show what models are made of and what they cost.", no_args_is_help=True)


@app.command()
def show(
    names: Recipes,
    set_: Set = None,
    image: Annotated[
        str | None,
        typer.Option(help="Also show what a picture of this size costs, such as 1344x1344. Default: no picture."),
    ] = None,
) -> None:
    """Show a model's parameters by part, its memory and its FLOPs.

    The model is not allocated, so this takes seconds for any size.
    """
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
