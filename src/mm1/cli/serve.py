"""`mm1 serve`: a model behind OpenAI's API."""

from __future__ import annotations

import importlib.util
import os
from typing import Annotated

import typer

from mm1.cli.options import Quantize
from mm1.errors import UserError
from mm1.places import MODEL_HELP

_NEEDS = ("fastapi", "uvicorn", "openai", "prometheus_client")


def serve(
    model: Annotated[str, typer.Argument(help=f"The model. {MODEL_HELP}")],
    host: Annotated[str, typer.Option(help="The address that is listened on. 0.0.0.0: all of this machine's.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port. 0: one that is free.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="MM1_API_KEY",
            help="The key that clients must send. Others see an option's value in the list of processes; they don't "
            "see MM1_API_KEY. Default: none is asked for.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What requests call the model. May be repeated. Default: the model as it is named here."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A host, as HOST or HOST:PORT, from which pictures at addresses are fetched. May be repeated. "
            "Default: none; pictures come in the request."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="A torch device, or auto: a GPU if there is one.")] = "auto",
    dtype: Annotated[
        str,
        typer.Option(help="Float32, bfloat16 or float16 in small letters, or auto: float32 on a CPU, else bfloat16."),
    ] = "auto",
    quantize: Quantize = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests that are answered together.")] = 16,
    queue: Annotated[int, typer.Option(min=0, help="Requests that wait; more are refused (429).")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the longest answer.")] = 512,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Megabytes of the largest request.")] = 20,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, help="Megapixels of all pictures of a request together.")
    ] = 64,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a request may take, waiting included (504).")
    ] = 120,
    page: Annotated[
        bool,
        typer.Option(
            "--page/--no-page", help="Whether there is a page at / for people with a browser. Default: there is."
        ),
    ] = True,
) -> None:
    """Serve a model at OpenAI's API: chat and completions with pictures, streamed or not."""
    missing = [package for package in _NEEDS if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"mm1 serve needs {', '.join(missing)}: pip install 'mm1[serve]'")
    # An empty variable is none to typer, but whoever set it wanted a key.
    if api_key == "" or (api_key is None and os.environ.get("MM1_API_KEY") == ""):
        raise UserError("--api-key (or MM1_API_KEY) is empty: give a key, or leave it out")
    from mm1.serve.addresses import allowed_host
    from mm1.serve.limits import Limits
    from mm1.serve.server import serve_model

    limits = Limits(
        body_bytes=round(max_megabytes * 1e6),
        pixels=round(max_megapixels * 1e6),
        max_tokens=max_tokens,
        queue=queue,
        seconds=timeout,
        batch_size=batch_size,
        hosts=tuple(allowed_host(one) for one in allow_host or ()),
    )
    code = serve_model(
        model,
        names=name or (),
        host=host,
        port=port,
        key=api_key,
        device=device,
        dtype=dtype,
        quantize=quantize,
        limits=limits,
        page=page,
    )
    raise typer.Exit(code)
