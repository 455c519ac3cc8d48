"""The door: who may ask, how much, how many at once, and for how long.

ASGI middleware around the library's server. It reads a request's whole body before the library sees any of it, and
watches the connection from then on.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mm1.serve.call import CALL, Call
from mm1.serve.limits import Limits
from mm1.serve.metrics import Metrics
from mm1.serve.problems import Problem, too_slow

OPEN_PATHS = ("/", "/healthz", "/health")
"""Paths that need no key: what watches a server, or shows its page, seldom has one."""

PAGE = "/page/"
"""Where the files of the page at `/` are: they need no key either, the page asks for it."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DRAIN_SECONDS = 5.0
_GRACE_SECONDS = 2.0


class Guard:
    """The middleware.

    Args:
        app: What it guards.
        limits: See `Limits`.
        metrics: Counts every request.
        key: What clients send as `Authorization: Bearer KEY`; None: nothing is asked for.
        hosts: Host names that requests may be addressed to; None: any. On a server for this machine alone, a web page
            whose name was pointed at 127.0.0.1 (DNS rebinding) gets no answer.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, key: str | None, hosts: Sequence[str] | None
    ) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._key = None if key is None else key.encode()
        self._hosts = hosts
        self._under_way = 0
        self._usual_seconds = 1.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # as nginx counts clients that leave before they get one

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        call = Call(self._limits.seconds)
        CALL.set(call)
        try:
            self._check(scope)
            if scope["method"] == "POST":
                await self._post(call, scope, receive, sending)
            else:
                await self._app(scope, receive, sending)
        except Problem as problem:
            response = JSONResponse(problem.body(), problem.status, headers=problem.headers)
            await response(scope, receive, sending)
        except Exception:
            status = 500
            raise
        finally:
            self._metrics.answered(scope["path"], 500 if call.failed else status, time.monotonic() - call.started)

    def _check(self, scope: Scope) -> None:
        """Check whom the request is addressed to, and the key."""
        headers = dict(scope["headers"])
        if self._hosts is not None:
            name = headers.get(b"host", b"").decode("latin-1").lower()
            name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
            if name not in self._hosts:
                raise Problem(
                    403, "this server answers this machine only: ask http://127.0.0.1, or start it with --api-key"
                )
        if self._key is None or scope["path"] in OPEN_PATHS or scope["path"].startswith(PAGE):
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
            raise Problem(
                401,
                "the key is missing or wrong: send the header 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _post(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body and let the library's server answer, if there is room."""
        if self._under_way >= self._limits.accepted:
            rounds = self._under_way / self._limits.batch_size
            wait = min(60, max(1, math.ceil(rounds * self._usual_seconds)))
            raise Problem(
                429,
                f"{self._under_way} requests are under way, the most that this server takes: ask again in {wait} s",
                code="queue_full",
                headers={"Retry-After": str(wait)},
            )
        self._under_way += 1
        self._metrics.under_way.inc()
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            # A client that sends or reads too slowly holds its place no longer than the others.
            async with asyncio.timeout(self._limits.seconds + _GRACE_SECONDS):
                body = await self._body(scope, receive)
                if body is not None:
                    await self._watched(call, body, scope, receive, sending)
        except TimeoutError:
            call.failed = started
            if not started:
                raise too_slow(self._limits.seconds) from None
        finally:
            call.given_up.set()  # whatever is still being written is for nobody
            self._under_way -= 1
            self._metrics.under_way.dec()
            self._usual_seconds += 0.1 * (time.monotonic() - call.started - self._usual_seconds)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the request's body; None if the client left.

        Raises:
            Problem: If it is too large.
        """
        most = self._limits.body_bytes
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        too_large = Problem(
            413,
            f"the request has more than {most:,} bytes, the most that this server takes: send smaller pictures",
            code="request_too_large",
            headers={"Connection": "close"},
        )
        if length.isdigit() and int(length) > most and b"expect" in headers:
            raise too_large  # the client asks before it sends
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > most:
                if message.get("more_body", False):
                    await _drain(receive, 4 * most)
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)

    async def _watched(self, call: Call, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the library's server answer; the call is given up when the client leaves."""
        bodies: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        finished, left = asyncio.Event(), asyncio.Event()

        async def receiving() -> Message:
            if bodies:
                return bodies.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def sending(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                finished.set()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not finished.is_set():
                self._metrics.given_up.inc()
                call.given_up.set()
                left.set()
                answering.cancel()

        async def answer() -> None:
            await self._app(scope, receiving, sending)

        answering = asyncio.create_task(answer())
        watching = asyncio.create_task(watch())
        try:
            await answering
        except asyncio.CancelledError:
            if not left.is_set():
                raise
        finally:
            watching.cancel()


async def _drain(receive: Receive, most: int) -> None:
    """Read on for a while: a client that is still sending does not read the answer, and would see a broken pipe."""
    count = 0
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while count < most:
                message = await receive()
                if not message.get("more_body", False):
                    return
                count += len(message["body"])
    except TimeoutError:
        return
