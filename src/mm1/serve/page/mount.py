"""Puts the page and what it asks for into the server's application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from typing import Any

import torch
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from mm1.document import Document
from mm1.evaluate.caption import MAX_NEW_TOKENS
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.serve.call import CALL, Call
from mm1.serve.inputs import MM1Inputs
from mm1.serve.page.attention import attention
from mm1.serve.page.bodies import Alternatives, Given, Nothing, read_asked
from mm1.serve.page.scores import scores
from mm1.serve.page.seen import seen
from mm1.serve.pictures import PictureReader
from mm1.serve.problems import Problem, too_slow
from mm1.serve.service import Service

_SCRIPTS = ("api", "dom", "examples", "inside", "page", "pictures", "prompt")
_FILES = {
    "/": ("index.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    **{f"/page/{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
}
"""Address -> file and its type. The guard asks no key for them: a browser can't send one with an address."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Nothing from elsewhere, nothing in line: whatever a model says can't become a script."""

_BATCH = 8
_CACHE_BYTES = 64 << 20

Work = Callable[[Document, Call], dict[str, Any]]


def mount_page(app: FastAPI, service: Service) -> None:
    """Add the page at `/`, and `/mm1/about`, `/mm1/tiles`, `/mm1/scores` and `/mm1/attention`.

    Args:
        app: The application of `mm1.serve.app.build_app`.
        service: Its model.
    """
    for path, (name, kind) in _FILES.items():
        _add_file(app, path, name, kind)
    _Inside(service).add(app)


def _add_file(app: FastAPI, path: str, name: str, kind: str) -> None:
    content = resources.files("mm1.serve.page").joinpath("files", name).read_bytes()

    @app.get(path, include_in_schema=False)
    def file() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=_HEADERS)


class _Inside:
    """Looks into the model; one request at a time, while no batch is being answered."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # A thread of its own: those that prepare prompts for chat must not wait for the model.
        self._pool = ThreadPoolExecutor(1, "mm1-page")
        inputs = service.inputs
        self._inputs = inputs if isinstance(inputs, MM1Inputs) else None
        self._generator: MM1Generator | None = None
        if self._inputs is not None:
            model = inputs.model
            self._generator = MM1Generator(
                model, inputs.processor, batch_size=_BATCH, device=model.device, cache_bytes=_CACHE_BYTES
            )

    def add(self, app: FastAPI) -> None:
        """Add the routes."""

        @app.get("/mm1/about", include_in_schema=False)
        def about() -> JSONResponse:
            return JSONResponse(self._about())

        @app.post("/mm1/tiles", include_in_schema=False)
        async def tiles(body: dict[str, Any]) -> JSONResponse:
            return await self._answer(Nothing, body, lambda read, inputs: lambda document, call: seen(inputs, document))

        @app.post("/mm1/scores", include_in_schema=False)
        async def score(body: dict[str, Any]) -> JSONResponse:
            def work(read: Any, inputs: MM1Inputs) -> Work:
                generator = self._generator
                assert generator is not None

                def compute(document: Document, call: Call) -> dict[str, Any]:
                    inputs.prepare(document)  # checks its length and its pictures
                    with self._turn(call):
                        return scores(generator, document, read.alternatives)

                return compute

            return await self._answer(Alternatives, body, work)

        @app.post("/mm1/attention", include_in_schema=False)
        async def attend(body: dict[str, Any]) -> JSONResponse:
            def work(read: Any, inputs: MM1Inputs) -> Work:
                def compute(document: Document, call: Call) -> dict[str, Any]:
                    with self._turn(call):
                        return attention(inputs, document, read.answer, call)

                return compute

            return await self._answer(Given, body, work)

    def _about(self) -> dict[str, Any]:
        service = self._service
        limits = service.limits
        return {
            "model": service.names[0],
            "takes_turns": service.inputs.takes_turns,
            "looks_inside": self._inputs is not None,
            "max_tokens": limits.max_tokens,
            "usual_tokens": min(MAX_NEW_TOKENS, limits.max_tokens),
        }

    async def _answer(
        self, asked: type[BaseModel], body: Mapping[str, Any], work: Callable[[Any, MM1Inputs], Work]
    ) -> JSONResponse:
        """Read a request, work on its document in the thread, and return what comes of it."""
        inputs = self._inputs
        if inputs is None:
            raise Problem(400, "only models of mm1's own can be looked into: this is another family's")
        read, document = read_asked(self._service, asked, body)
        call, limits = CALL.get(), self._service.limits
        compute = work(read, inputs)

        def run() -> dict[str, Any]:
            if call.given_up.is_set():
                raise too_slow(limits.seconds)
            return compute(document(PictureReader(limits, call)), call)

        try:
            async with asyncio.timeout(call.seconds_left):
                return JSONResponse(await asyncio.get_running_loop().run_in_executor(self._pool, run))
        except TimeoutError:
            call.given_up.set()
            raise too_slow(limits.seconds) from None
        except torch.OutOfMemoryError:
            message = "the request does not fit into memory: show fewer or smaller pictures"
            raise Problem(503, message, code="out_of_memory") from None

    @contextmanager
    def _turn(self, call: Call) -> Iterator[None]:
        """Wait until no batch is being answered, and hold the next one back."""
        computing = self._service.engine.computing
        if not computing.acquire(timeout=call.seconds_left):
            raise TimeoutError
        try:
            yield
        finally:
            computing.release()
