"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mm1.cli.complete import complete_recipe
from mm1.errors import UserError

RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a packaged recipe, or a YAML file.", autocompletion=complete_recipe)
]
Recipes = Annotated[
    list[str],
    typer.Argument(help="Names of packaged recipes, such as mm1-3b, or YAML files.", autocompletion=complete_recipe),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a key of the recipe, as in train.steps=100. May be repeated. Default: no change."
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of processes. Default: as many as there are CPU cores.")
]
Quantize = Annotated[
    str | None,
    typer.Option(
        help="Precision of the decoder's weights: int8 or int4 (pip install 'mm1[quantize]'). Default: dtype's."
    ),
]
Engine = Annotated[str, typer.Option(help="What runs the work: processes of this machine, or ray for a cluster.")]


def split_commas(text: str) -> list[str]:
    """Return the parts of `a,b,c`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_shots(text: str) -> list[int]:
    """Return the numbers of `0,4,8`."""
    parts = split_commas(text)
    if not parts or not all(part.isdigit() for part in parts):
        raise UserError(f"--shots {text}: give whole numbers with commas, such as 0,4,8")
    return [int(part) for part in parts]


def parse_options(settings: list[str] | None, option: str = "--set") -> dict[str, Any]:
    """Return `key=value` settings of an option as a mapping, values read as YAML."""
    from mm1.recipe import parse_setting

    return dict(parse_setting(setting, option) for setting in settings or [])
