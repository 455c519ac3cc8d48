"""A Hub of the test's own: as much of its API as a push and a pull need, over HTTP on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "a" * 30


class FakeHub(ThreadingHTTPServer):
    """Holds repositories: `owner/name` -> branch -> path -> content.

    Attributes:
        private: For each repository, whether it is.
        calls: What was asked, in order: method and path.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.calls: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: Any = None, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.calls.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "no right to write"}, 403)
        if path == "/api/repos/create":
            given = json.loads(body)
            name = "/".join(part for part in (given.get("organization"), given["name"]) if part)
            is_new = name not in self.server.repositories
            self.server.repositories.setdefault(name, {"main": {}})
            self.server.private.setdefault(name, given.get("visibility") == "private")
            answer = {"url": f"{self.server.address}/{name}", "name": name, "id": name}
            return self._answer(answer, 200 if is_new else 409)
        if path == "/api/validate-yaml":
            return self._answer({"warnings": [], "errors": []})
        name, what, revision = self._place(path)
        branches = self.server.repositories[name]
        if what == "branch":
            branches.setdefault(revision, dict(branches["main"]))
            return self._answer({})
        if what == "preupload":
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
            return self._answer({"files": [{**one, "shouldIgnore": False, "oid": None} for one in files]})
        assert what == "commit"
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                branches[revision][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del branches[revision][value["path"]]
        return self._answer({"commitUrl": f"{self.server.address}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.calls.append(f"{self.command} {path}")
        if path.startswith("/api/"):
            name, what, revision = self._place(path)
            files = self._files(name, revision)
            if files is None:
                kind = "RevisionNotFound" if name in self.server.repositories else "RepoNotFound"
                return self._answer({"error": "not found"}, 404, X_Error_Code=kind)
            if what == "tree":
                rows = [{"type": "file", "path": p, "size": len(c), "oid": _oid(c)} for p, c in sorted(files.items())]
                return self._answer(rows)
            siblings = [{"rfilename": path} for path in sorted(files)]
            return self._answer({"id": name, "sha": self._sha(name, revision), "siblings": siblings, "private": False})
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        assert match is not None
        files = self._files(match[1], match[2]) or {}
        if match[3] not in files:
            return self._answer({"error": "no file"}, 404, X_Error_Code="EntryNotFound")
        content = files[match[3]]
        return self._answer(content, ETag=f'"{_oid(content)}"', X_Repo_Commit=self._sha(match[1], match[2]))

    do_HEAD = do_GET  # noqa: N815

    def _place(self, path: str) -> tuple[str, str, str]:
        parts = path.removeprefix("/api/models/").split("/")
        return "/".join(parts[:2]), parts[2] if len(parts) > 2 else "", parts[3] if len(parts) > 3 else "main"

    def _sha(self, name: str, revision: str) -> str:
        """Return a commit's hash; one that is asked for by hash has it already."""
        return revision if re.fullmatch("[0-9a-f]{40}", revision) else hashlib.sha1(revision.encode()).hexdigest()

    def _files(self, name: str, revision: str) -> dict[str, bytes] | None:
        branches = self.server.repositories.get(name, {})
        return next(
            (files for branch, files in branches.items() if revision in (branch, self._sha(name, branch))), None
        )


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
