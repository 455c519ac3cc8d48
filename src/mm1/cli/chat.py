"""`mm1 chat`: a conversation with a model in the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mm1.cli.options import Quantize
from mm1.places import MODEL_HELP


def chat(
    model: Annotated[str, typer.Argument(help=f"The model. {MODEL_HELP}")],
    pictures: Annotated[
        list[str] | None, typer.Argument(help="Files of pictures for the first question. Default: none.")
    ] = None,
    shots: Annotated[
        Path | None,
        typer.Option(
            help="Examples that come first: a folder of pictures, each with a .txt that holds the answer, or a .jsonl "
            "file. Default: none."
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            help="File that the chat is saved to after every answer, and resumed from if it exists. Default: a new one "
            "in ~/.local/share/mm1/chats; none if the questions come from a pipe."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last chat with this model. Default: a new chat.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")] = 60,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="Text that ends an answer; may be repeated; '' for none. Default: a line break, as in mm1 caption."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="A torch device, or auto: a GPU if there is one.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Number format: auto, float32, bfloat16 or float16.")] = "auto",
    quantize: Quantize = None,
) -> None:
    """Talk with a model about pictures, in the terminal.

    Questions from a pipe are answered line by line, answers alone on standard output.
    """
    from mm1.chat.loop import hold_chat
    from mm1.chat.session import ChatSettings, Session
    from mm1.evaluate.caption import STOP

    ends = STOP if stop is None else tuple(mark for mark in stop if mark)
    settings = ChatSettings(max_new_tokens, ends, history, resume, device, dtype, quantize)
    try:
        hold_chat(Session(model, settings), pictures or [], shots)
    except BrokenPipeError:  # nobody reads on, as in `mm1 chat ... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
