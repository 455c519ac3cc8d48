"""The server's OpenAPI description; the library's knows no field of a body, and no way to fail."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from openai.types import Completion
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from mm1.serve.bodies import ChatBody, CompletionBody

_BODIES: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "/v1/chat/completions": (ChatBody, ChatCompletion),
    "/v1/completions": (CompletionBody, Completion),
}
_FAILURES = {
    "400": "The request is wrong; the message says where.",
    "401": "The key is missing or wrong.",
    "403": "The request is addressed to another host.",
    "404": "There is no such model or path.",
    "405": "The path has another method.",
    "413": "The request is too large.",
    "415": "The body is not sent as JSON.",
    "429": "The queue is full; `Retry-After` says when to ask again.",
    "500": "The server failed.",
    "503": "The server is ending, or out of memory.",
    "504": "The answer was not done in time.",
}
_TEXT = {"type": "string"}
_MAYBE = {"anyOf": [_TEXT, {"type": "null"}]}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": _MAYBE, "code": _MAYBE},
        }
    },
}


def described(app: FastAPI) -> dict[str, Any]:
    """Return the description of an application, made once."""
    if app.openapi_schema is None:
        page = FastAPI.openapi(app)
        schemas = page["components"] = {"schemas": {"Error": _ERROR}}
        for path, methods in page["paths"].items():
            for method in methods.values():
                method["responses"].pop("422", None)
                for status, meaning in _FAILURES.items():
                    if path not in ("/health", "/healthz") or status in ("403", "405"):
                        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
                        method["responses"][status] = {"description": meaning, "content": content}
        for path in ("/health", "/healthz"):
            page["paths"][path]["get"]["responses"]["503"] = {
                "description": "No answers are written any more.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            }
        page["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": _TEXT}}
        for path, (body, answer) in _BODIES.items():
            for kind in (body, answer):
                schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas["schemas"] |= schema.pop("$defs", {})
                schemas["schemas"][kind.__name__] = schema
            asked = page["paths"][path]["post"]
            asked["requestBody"]["content"] = {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}
            }
            asked["responses"]["200"]["content"] = {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}},
                "text/event-stream": {"schema": {"type": "object", "properties": {"data": _TEXT}}},
            }
        app.openapi_schema = page
    return app.openapi_schema
