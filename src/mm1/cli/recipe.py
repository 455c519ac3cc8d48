"""`mm1 recipe`: what recipes there are, what is in them and what can be."""

from __future__ import annotations

from typing import Annotated

import typer

from mm1.cli.console import output
from mm1.cli.options import RecipeArgument, Set

app = typer.Typer(help="List recipes, show one in full, look up keys.", no_args_is_help=True)

OfEncoder = Annotated[
    bool, typer.Option("--encoder", help="Of an image encoder's recipe. Default: of a multimodal model's.")
]


@app.command("list")
def list_() -> None:
    """List the packaged recipes, each with the command that trains by it."""
    from mm1.recipe.tables import recipe_table

    output().print(recipe_table())


@app.command()
def show(recipe: RecipeArgument, set_: Set = None) -> None:
    """Print a recipe in full, with every default, as a run's recipe.yaml has it."""
    from mm1.recipe.any_kind import load_any_recipe

    typer.echo(load_any_recipe(recipe, set_ or []).to_yaml(), nl=False)


@app.command()
def keys(
    prefix: Annotated[
        str, typer.Argument(help="What the keys begin with, such as train, or contain. Default: all keys.")
    ] = "",
    of_encoder: OfEncoder = False,
) -> None:
    """List the keys of recipes, each with its default, what it is, and the source of the number."""
    from mm1.recipe import EncoderRecipe, Recipe
    from mm1.recipe.keys import matching_keys
    from mm1.recipe.tables import key_lines

    typer.echo(key_lines(matching_keys(EncoderRecipe if of_encoder else Recipe, prefix), output().width))


@app.command()
def schema(of_encoder: OfEncoder = False) -> None:
    """Print the JSON schema of recipes, for editors that complete and check YAML."""
    import json

    from mm1.recipe import EncoderRecipe, Recipe
    from mm1.recipe.editor import editor_schema

    typer.echo(json.dumps(editor_schema(EncoderRecipe if of_encoder else Recipe), indent=2))
