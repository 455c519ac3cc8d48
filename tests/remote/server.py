"""A server of S3's protocol in a process of its own (moto's), and a proxy before it that can be slow, and fail."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

ADDRESS = "127.0.0.1"
_SERVER = """
import sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_HOP = ("connection", "transfer-encoding", "keep-alive", "server", "date")


class Request(NamedTuple):
    """What a client asked for.

    Attributes:
        method: `GET` or another.
        path: Bucket and key, with what is asked of them.
        headers: In lower case.
    """

    method: str
    path: str
    headers: dict[str, str]


Rule = Callable[[Request], int | None]
"""Sees every request; may wait. The status that it returns is what the client gets; None: the server answers."""


class Store:
    """The proxy before a server.

    Args:
        behind: The server's port.
    """

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.requests: list[Request] = []
        self.rule: Rule = lambda request: None
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path.lstrip("/"), headers)
                store.requests.append(request)
                status = store.rule(request)
                try:
                    if status is None:
                        self._forward(body)
                    else:
                        self.send_response(status)
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                except OSError:  # the client has given up
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

            def _forward(self, body: bytes) -> None:
                connection = http.client.HTTPConnection(ADDRESS, store.behind)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in (*_HOP, "content-length"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((ADDRESS, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{ADDRESS}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End the proxy."""
        self._server.shutdown()
        self._server.server_close()

    def put(self, address: str, data: bytes | None = None) -> None:
        """Put an object into the store, behind the proxy; without data, make a bucket."""
        self._ask("PUT", address, data)

    def remove(self, address: str) -> None:
        """Remove an object."""
        self._ask("DELETE", address)

    def upload(self, folder: Path, address: str) -> None:
        """Put the files below a folder into the store."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{address}/{file.relative_to(folder)}", file.read_bytes())

    def gets(self, part: str = "") -> list[Request]:
        """Return the requests for contents of objects whose path has a part."""
        gets = (one for one in self.requests if one.method == "GET" and "list-type" not in one.path)
        return [one for one in gets if part in one.path]

    def _ask(self, method: str, address: str, data: bytes | None = None) -> None:
        connection = http.client.HTTPConnection(ADDRESS, self.behind)
        credentials = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"
        path = "/" + address.removeprefix("s3://")
        headers = {"Authorization": credentials, "X-Amz-Acl": "public-read", "Content-Length": str(len(data or b""))}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status < 300, content
        connection.close()


@contextmanager
def serve() -> Iterator[Store]:
    """Start a server and its proxy; end them when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    store = Store(int(process.stdout.readline()))
    try:
        yield store
    finally:
        store.close()
        process.stdin.close()
        process.wait(timeout=30)


def slow(seconds: float, part: str) -> Rule:
    """Return the rule that lets requests for contents of objects wait whose path has a part."""

    def rule(request: Request) -> None:
        if request.method == "GET" and part in request.path:
            time.sleep(seconds)

    return rule


def failing(part: str, times: int = sys.maxsize, status: int = 503) -> Rule:
    """Return the rule by which requests for contents of objects fail, so many times, whose path has a part."""
    left = [times]

    def rule(request: Request) -> int | None:
        if request.method != "GET" or part not in request.path or left[0] == 0:
            return None
        left[0] -= 1
        return status

    return rule
