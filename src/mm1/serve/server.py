"""`mm1 serve`: the model is loaded, then the port opens; signals end it in order."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mm1.errors import UserError
from mm1.evaluate.models.loading import load_generator
from mm1.progress import console
from mm1.serve.app import build_app
from mm1.serve.guard import LOOPBACK
from mm1.serve.inputs import inputs_of
from mm1.serve.limits import Limits
from mm1.serve.metrics import Metrics
from mm1.serve.page.mount import mount_page
from mm1.serve.service import Service


def serve_model(
    model: str,
    *,
    names: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    limits: Limits | None = None,
    page: bool = True,
) -> int:
    """Serve a model until a signal ends it.

    Args:
        model: Its name (see `mm1.places.MODEL_HELP`).
        names: What requests call it; default: its name.
        host: The address that is listened on.
        port: The port; 0: any that is free.
        key: What clients must send; None: nothing.
        device: `auto`, or a torch device.
        dtype: `auto`, or a torch dtype's name.
        quantize: The precision of the decoder's weights, int8 or int4; None: that of `dtype`.
        limits: What is taken on.
        page: Whether there is a page at `/`.

    Returns:
        The exit code: 0 after SIGTERM, 130 after Ctrl-C.

    Raises:
        UserError: If the model can't be loaded, or the address can't be listened on.
    """
    limits = limits or Limits()
    opened = _bind(host, port)
    with opened:
        generator = load_generator(model, device=device, dtype=dtype, quantize=quantize)
        service = Service(inputs_of(generator), names or (model,), limits, Metrics())
        own = key is None and host in LOOPBACK
        app = build_app(service, key=key, hosts=LOOPBACK if own else None)
        if page:
            mount_page(app, service)
        where = f"[{host}]" if ":" in host else host
        address = f"http://{where}:{opened.getsockname()[1]}"
        if key is None and host not in LOOPBACK:
            console.print(f"whoever reaches {address} can use the model: give --api-key, or a --host of this machine")
        shown = f", and shows its page at {address}" if page else ""
        greeting = f"{service.names[0]} answers at {address}/v1{shown} (Ctrl-C ends it)"
        return run_app(app, opened, limits.seconds, greeting)


def run_app(app: FastAPI, opened: socket.socket, seconds: float, greeting: str) -> int:
    """Run an application on a bound socket until a signal ends it; see `serve_model`.

    Args:
        app: The application.
        opened: The socket.
        seconds: How long answers under way may take once a signal has come.
        greeting: Printed when requests are taken.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(seconds)),
    )
    server = _Server(config, greeting)
    server.run(sockets=[opened])
    return 130 if server.ended_by == signal.SIGINT else 0


class _Server(uvicorn.Server):
    """uvicorn's server; a signal ends it with an exit code, not by being raised again."""

    def __init__(self, config: uvicorn.Config, greeting: str) -> None:
        super().__init__(config)
        self._greeting = greeting
        self.ended_by: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port and say so."""
        await super().startup(sockets)
        if self.started:
            console.print(self._greeting, soft_wrap=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Let answers under way end; a second Ctrl-C doesn't wait for them."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        elif not self.should_exit:
            console.print("ending: requests under way are answered (Ctrl-C again: they are not)")
            self.ended_by = sig
        self.should_exit = True


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that has the address, and does not listen yet: the model is loaded first."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: the address can't be listened on ({error.strerror or error}): name another"
        ) from None
    return opened
