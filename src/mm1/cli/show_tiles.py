"""`mm1 show-tiles`: the images that a model sees of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mm1.cli.complete import complete_recipe
from mm1.errors import UserError
from mm1.places import MODEL_HELP
from mm1.progress import console

_ELSE = "Default: that of the recipe or the model, else"


def show_tiles(
    image: Annotated[Path, typer.Argument(help="File of the picture.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Take the settings from a recipe, packaged or a YAML file. Default: the paper's settings.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Take the settings from a model. {MODEL_HELP} Default: the paper's settings.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help=f"Side of an image in pixels. {_ELSE} 672.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help=f"Tokens of an image. {_ELSE} 144.")] = None,
    grid: Annotated[
        str | None,
        typer.Option(help=f"How a picture is cut: none, ROWSxCOLUMNS or dynamic. {_ELSE} 2x2."),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help=f"How a picture is fitted to the grid: squash or pad. {_ELSE} squash.")
    ] = None,
    overview: Annotated[
        str | None,
        typer.Option(help=f"Place of the image of the whole picture: first, last or none. {_ELSE} first."),
    ] = None,
    max_tiles: Annotated[
        int | None, typer.Option(min=1, help=f"Most crops of a picture with --grid dynamic. {_ELSE} 9.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with the images to this file. Default: no page.")
    ] = None,
) -> None:
    """Show the images that a model sees of a picture, and how many tokens they take."""
    from pydantic import ValidationError

    from mm1.look.tiles import print_tiles, view_tiles, write_tiles
    from mm1.processing.tiles import TilingRule
    from mm1.recipe import ResolutionRecipe

    if recipe is not None and model is not None:
        raise UserError("--recipe and --model both say how pictures are cut: give one of them")
    own_size, own_tokens, settings = _settings(recipe, model)
    given = {"grid": grid, "fit": fit, "overview": overview, "max_tiles": max_tiles}
    try:
        rule = ResolutionRecipe.model_validate(settings | {key: value for key, value in given.items() if value})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-") if first["loc"] else "grid"
        raise UserError(f"--{option}: {first['msg'].removeprefix('Value error, ')}") from None
    view = view_tiles(image, size or own_size, tokens or own_tokens, TilingRule.of(rule))
    print_tiles(view)
    if html is not None:
        write_tiles(view, html)
        console.print(f"the page: {html.resolve().as_uri()}")


def _settings(recipe: str | None, model: str | None) -> tuple[int, int, dict[str, Any]]:
    """Return side, tokens per image and rule of a recipe or a model; without either the paper's."""
    if recipe is not None:
        from mm1.recipe import load_recipe

        loaded = load_recipe(recipe).model
        if loaded.from_ is not None:
            from mm1.model.processor import brought_processor
            from mm1.model.resolve import resolve_model

            folder = resolve_model(loaded.from_, "model.from", weights=False)
            return _of_processor(brought_processor(str(folder), loaded))
        return loaded.vision.image_size, loaded.connector.num_tokens, loaded.resolution.model_dump()
    if model is not None:
        from mm1.model.resolve import resolve_model
        from mm1.model.saved import load_processor

        return _of_processor(load_processor(resolve_model(model, "--model"), f"--model: '{model}'"))
    return 672, 144, {"grid": "2x2"}


def _of_processor(processor: Any) -> tuple[int, int, dict[str, Any]]:
    return processor.image_size, processor.tokens_per_image, dict(processor.resolution)
