"""The library's server around one model: what is added to it, and what is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from transformers.cli.serving.server import build_server

from mm1.serve.described import described
from mm1.serve.guard import Guard
from mm1.serve.handlers import ChatHandler, TextHandler
from mm1.serve.problems import Problem
from mm1.serve.service import OneModel, OneState, Service

_KEPT = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/openapi.json")
"""The library's routes that stay. The others load any model of the Hub, unload ours, take sounds, or show pages whose
scripts come from elsewhere."""


def build_app(service: Service, *, key: str | None = None, hosts: Sequence[str] | None = None) -> FastAPI:
    """Return the application: routes can be added to it, and all of them are behind the guard.

    Args:
        service: The model.
        key: See `mm1.serve.guard.Guard`.
        hosts: Likewise.
    """
    app: Any = build_server(
        OneModel(service),
        ChatHandler(service),
        completion_handler=TextHandler(service),
        response_handler=None,  # type: ignore[arg-type]  # its route, like the next two, is taken away
        transcription_handler=None,  # type: ignore[arg-type]
        systemone_handler=None,  # type: ignore[arg-type]
        generation_state=OneState(service),
    )
    app.router.routes[:] = [route for route in app.router.routes if route.path in _KEPT]
    app.title = "mm1 serve"
    _add_routes(app, service)
    _add_problems(app)
    app.openapi = lambda: described(app)
    app.add_middleware(Guard, limits=service.limits, metrics=service.metrics, key=key, hosts=hosts)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    def healthz() -> JSONResponse:
        if not service.engine.is_alive:
            return JSONResponse({"status": "unhealthy"}, status_code=503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models/{name:path}")
    def model(name: str) -> JSONResponse:
        found = service.name(name)
        return JSONResponse(next(one for one in service.models() if one["id"] == found))


def _add_problems(app: FastAPI) -> None:
    """Let every failure have OpenAI's form."""

    def respond(problem: Problem) -> JSONResponse:
        return JSONResponse(problem.body(), problem.status, headers=problem.headers)

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> JSONResponse:
        return respond(problem)

    @app.exception_handler(RequestValidationError)
    async def on_body(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "")
        if "json" not in kind.lower():
            return respond(Problem(415, "the body is not JSON: send it with 'Content-Type: application/json'"))
        detail = next((f" ({one['ctx']['error']})" for one in error.errors() if "error" in one.get("ctx", {})), "")
        return respond(Problem(400, f"the body is no JSON object{detail}: check its brackets and quotes"))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        sentences = {
            400: "the body can't be read as JSON: check its brackets, quotes and numbers",
            404: f"there is no {request.url.path[:200]} here: /v1/models, /v1/chat/completions and /v1/completions are",
            405: f"{request.method} is not for this address: POST is for questions, GET for /v1/models",
        }
        headers = dict(error.headers or {})
        message = sentences.get(error.status_code, str(error.detail))
        return respond(Problem(error.status_code, message, headers=headers))

    @app.exception_handler(Exception)
    async def on_failure(request: Request, error: Exception) -> JSONResponse:
        return respond(Problem(500, "the server failed on this request: its log says why"))
