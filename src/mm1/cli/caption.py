"""`mm1 caption`: a model's words for one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.cli.options import Quantize
from mm1.places import MODEL_HELP


def caption(
    run: Annotated[str, typer.Argument(help=f"The model. {MODEL_HELP}")],
    image: Annotated[Path, typer.Argument(help="File of the picture.")],
    question: Annotated[
        str | None, typer.Option(help="Answer this question about the picture. Default: a caption is written.")
    ] = None,
    quantize: Quantize = None,
) -> None:
    """Caption a picture, or answer a question about it."""
    from mm1.evaluate.caption import caption_image

    typer.echo(caption_image(run, image, question, quantize))
