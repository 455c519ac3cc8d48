"""`mm1 export`: a folder in Hugging Face format from a run, or from one of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.places import MODEL_HELP
from mm1.progress import console


def export(
    model: Annotated[str, typer.Argument(help=f"The model. {MODEL_HELP}")],
    step: Annotated[
        int | None, typer.Option(min=0, help="Step of the run whose checkpoint is taken. Default: the finished model.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder to write; it must not exist. Default: the model stays inside the run.")
    ] = None,
) -> None:
    """Make a model's folder in Hugging Face format.

    It is made file by file, so a model may be larger than the memory.
    """
    from mm1.model.export import export_model

    console.print(f"the model: {export_model(model if step is None else f'{model}@{step}', to)}")
