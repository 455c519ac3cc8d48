"""`mm1 push` and `mm1 pull`: models for others, and models of others."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mm1.places import MODEL_HELP
from mm1.progress import console


def push(
    model: Annotated[str, typer.Argument(help=f"The model. {MODEL_HELP}")],
    to: Annotated[str, typer.Option(help="A folder that does not exist yet, or owner/name on the Hugging Face Hub.")],
    licence: Annotated[
        str, typer.Option("--licence", "--license", help="Licence of the model in the Hub's words, such as apache-2.0.")
    ] = "unknown",
    public: Annotated[
        bool,
        typer.Option("--public/--private", help="Whether everybody sees a new model on the Hub. Default: only you."),
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch on the Hub, made if there is none. Default: the main one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make and check all, print the card, push nothing. Default: push.")
    ] = False,
) -> None:
    """Publish a model with a card that says what it is, in a folder or on the Hub.

    The card has base models, data with licences, recipe, scores and code that runs. Nothing of this machine is in it.
    """
    _show_progress()
    from mm1.publish.push import push

    where = push(model, to, licence=licence, private=not public, revision=revision, dry_run=dry_run)
    console.print(f"the model: {where}")


def pull(
    model: Annotated[str, typer.Argument(help="A Hub id (owner/name, owner/name@revision), or a folder.")],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder to put it into; it must not exist. Default: the Hub's cache, where commands find it."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub. Default: the newest.")] = None,
) -> None:
    """Fetch a model from the Hub, and check that it is a whole MM1 model."""
    _show_progress()
    from mm1.publish.pull import pull

    console.print(f"the model: {pull(model, to, revision)}")


def _show_progress() -> None:
    if sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "0"  # transfers take long, and the library shows how they go
