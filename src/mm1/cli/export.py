"""`mm1 export`: a model's folder for others: in Hugging Face format, with its code or without, or in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm1.places import MODEL_HELP
from mm1.progress import console


def export(
    model: Annotated[str, typer.Argument(help=f"The model. {MODEL_HELP}")],
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder to write; it must not exist. Default: the model stays inside the run (hf alone)."),
    ] = None,
    to: Annotated[str, typer.Option(help="Format: hf (Hugging Face), llava, or onnx.")] = "hf",
    standalone: Annotated[
        bool,
        typer.Option(
            "--standalone",
            help="Write MM1's code too, so that the folder loads where mm1 is not installed (hf alone). Default: no.",
        ),
    ] = False,
    step: Annotated[
        int | None, typer.Option(min=0, help="Step of the run whose checkpoint is taken. Default: the finished model.")
    ] = None,
) -> None:
    """Make a folder of a model for other programs.

    In Hugging Face format it is made file by file, so a model may be larger than the memory. Other formats are checked
    against the model, and the largest difference of logits is printed.
    """
    from mm1.export.export import export_model

    name = model if step is None else f"{model}@{step}"
    written, found = export_model(name, folder, to, standalone=standalone)
    console.print(f"the model: {written}")
    if found is not None:
        console.print(found)
