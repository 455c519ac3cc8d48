"""Pictures at web addresses, fetched from a server of the test's own."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.data.readers import fetching
from mm1.document import Image, Text
from mm1.errors import UserError
from mm1.fetch import web
from mm1.fetch.web import NotFetchedError, Web
from tests.data.sample_sources import picture, write_parquet

PRIVATE = "http://10.11.12.13/a.png"


class Pictures(http.server.BaseHTTPRequestHandler):
    """Answers by the path; `asked` counts."""

    asked: ClassVar[Counter[str]] = Counter()
    agents: ClassVar[set[str]] = set()
    delay = 0.0

    server: http.server.HTTPServer

    def do_GET(self) -> None:
        name = self.path.split("?")[0].strip("/").split("/")[0]
        self.asked[self.path] += 1
        self.agents.add(str(self.headers["User-Agent"]))
        time.sleep(self.delay)
        moved = {"moved": "/good.png", "inwards": PRIVATE, "file": "file:///etc/passwd", "round": "/round"}
        if name in moved:
            return self._answer(302, b"", Location=moved[name])
        if name == "sneaky":
            return self._answer(302, b"", Location=f"http://localhost:{self.server.server_port}/good.png")
        if name == "slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b"x")
                time.sleep(0.05)
            return None
        if name == "large":
            return self._answer(200, b"x" * 20_000)
        if name == "endless":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 20_000)
            return None
        if name == "page.png":
            return self._answer(200, b"<!doctype html><html>gone</html>")
        if name == "robots.png":
            return self._answer(200, picture(1), X_Robots_Tag="noindex, noai")
        if name == "other-robot.png":
            return self._answer(200, picture(1), X_Robots_Tag="otherbot: noai")
        if name in ("good.png", "g%C3%BCt.png"):
            return self._answer(200, picture(1))
        if name == "numbered":
            return self._answer(200, picture(int(self.path.split("/")[-1])))
        return self._answer(404, b"")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for header, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    Pictures.asked.clear()
    Pictures.delay = 0.0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # who asked has gone
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def reason(fetcher: Web, url: str) -> str:
    with pytest.raises(NotFetchedError) as caught:
        fetcher.get(url)
    return caught.value.reason


def test_what_is_not_fetched_and_why(host: str) -> None:
    own = Web([host], seconds=5, most_bytes=10_000)
    assert own.get(f"http://{host}/good.png") == own.get(f"http://{host}/moved") == picture(1)
    assert own.get(f"http://{host}/g\u00fct.png") == own.get(f"http://{host}/other-robot.png") == picture(1)
    assert all("mm1/" in agent for agent in Pictures.agents)
    not_public = "its host is not on the open net"
    assert reason(own, f"http://{host}/gone.png") == "its host answered 404"
    assert reason(own, f"http://{host}/robots.png") == "its owner asks not to use it (X-Robots-Tag)"
    assert reason(own, f"http://{host}/inwards") == not_public
    assert reason(own, f"http://{host}/sneaky") == not_public  # allowed is HOST:PORT as written, not where it leads
    assert reason(own, f"http://{host}/file") == "it has no plain http or https address"
    assert reason(own, f"http://{host}/round") == "more than 5 redirects"
    assert reason(own, f"http://{host}/large") == reason(own, f"http://{host}/endless") == "it is larger than 0 MiB"
    assert reason(Web(), f"http://{host}/good.png") == not_public
    for number in ("127.0.0.1", "[::1]", "169.254.169.254", "2130706433", "0x7f.1", "localhost"):
        assert reason(Web(), f"http://{number}/") == not_public
    for strange in ("ftp://a.example/b", "http://u:p@a.example/", "http:///a", "data:,x", "//"):
        assert reason(Web(), strange) == "it has no plain http or https address"


def test_time_is_for_all_of_an_address(host: str) -> None:
    start = time.monotonic()
    assert reason(Web([host], seconds=0.3), f"http://{host}/slow") == "its host was too slow (0.3 s)"
    assert time.monotonic() - start < 1.5


def test_a_resolver_that_fails_is_asked_again_and_an_unknown_name_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [socket.EAI_AGAIN, socket.EAI_NONAME]
    asked: list[str] = []

    def look_up(name: str, *_: Any, **__: Any) -> Any:
        asked.append(name)
        raise socket.gaierror(errors[len(asked) - 1], "no")

    monkeypatch.setattr(web, "_PAUSE", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    fetcher = Web()
    assert reason(fetcher, "http://a.example/1.png") == "its host is unknown"
    assert reason(fetcher, "http://a.example/2.png") == "its host is unknown"
    assert asked == ["a.example"] * 2


@pytest.mark.parametrize(
    ("values", "out"),
    [
        ([], False),
        (["all"], False),
        (["noai"], True),
        (["NoImageAI"], True),
        (["index, noimageindex"], True),
        (["mm1: noai"], True),
        (["otherbot: noai, noindex"], False),
        (["otherbot: noai", "none"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST"], False),
        (["noindex, unavailable_after: 25 Jun 2030"], True),
    ],
)
def test_opt_outs(values: list[str], out: bool) -> None:
    headers = Message()
    for value in values:
        headers["X-Robots-Tag"] = value
    assert web._opts_out(headers) == out


def pages(folder: Path, rows: list[list[str | None]], files: int = 1) -> str:
    """Write OBELICS' parquet; a place without an address has a text."""
    per_file = -(-len(rows) // files)
    for number in range(files):
        some = rows[number * per_file : (number + 1) * per_file]
        texts = [[None if one else f"text {place}" for place, one in enumerate(row)] for row in some]
        details = [json.dumps([one and {"src": one} for one in row]) for row in some]
        write_parquet(
            folder / f"train-{number:05d}-of-{files:05d}.parquet",
            {"images": some, "texts": texts, "metadata": details},
        )
    return str(folder)


@pytest.mark.parametrize("format_", ["obelics", "hub"])
def test_pages_keep_what_can_be_had(tmp_path: Path, host: str, format_: str) -> None:
    good, gone = f"http://{host}/good.png", f"http://{host}/gone.png"
    rows: list[list[str | None]] = [[good, None, gone], [None, f"http://{host}/page.png"], [gone], [gone, None]]
    source = pages(tmp_path / "from", rows * 20)
    options = {"fetch": True, "own_host": host}
    info = build_from(format_, [source], tmp_path / "to", workers=1, options=options)
    documents = list(Split(tmp_path / "to" / "train"))
    assert [document.parts for document in documents[:3]] == [
        (Image(picture(1), good), Text(" text 1\n")),
        (Text("text 0\n"),),
        (Text("text 1\n"),),
    ]
    assert len(documents) == 60
    split = info["splits"]["train"]
    assert (split["images"], split["pictures_left_out"]) == (20, 80)
    assert {why: entry["count"] for why, entry in split["lost"].items()} == {
        "a picture that was not fetched: its host answered 404": 60,
        "a picture that was not fetched: not a picture that is read: it is a page in HTML": 20,
    }
    assert gone in split["lost"]["a picture that was not fetched: its host answered 404"]["examples"][0]
    assert split["built"]["options"]["fetch"] is True


def test_without_being_asked_nothing_is_fetched(tmp_path: Path, host: str) -> None:
    source = pages(tmp_path / "from", [[f"http://{host}/good.png", None]])
    with pytest.raises(UserError, match="let them be fetched with --set fetch=true"):
        build_from("obelics", [source], tmp_path / "to", workers=1)
    assert not Pictures.asked


def test_a_limit_asks_for_no_more_than_it_needs(tmp_path: Path, host: str) -> None:
    rows: list[list[str | None]] = [[f"http://{host}/numbered/{n}", None] for n in range(1000)]
    options = {"fetch": True, "own_host": host}
    build_from("obelics", [pages(tmp_path / "from", rows)], tmp_path / "to", workers=1, options=options, limit=5)
    assert [document.images[0].data for document in Split(tmp_path / "to" / "train")] == [picture(n) for n in range(5)]
    assert len(Pictures.asked) <= 5 + fetching._AHEAD + 1


def test_a_network_that_is_gone_ends_the_build(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched before is kept, and failures of the network are not."""
    monkeypatch.setattr(fetching, "_MOST_IN_A_ROW", 5)
    monkeypatch.setattr(web, "_PAUSE", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{free.getsockname()[1]}"
    rows: list[list[str | None]] = [[f"http://{host}/numbered/{n}", None] for n in range(10)]
    rows += [[f"http://{dead}/{n}", None] for n in range(10)]
    source, options = pages(tmp_path / "from", rows), {"fetch": True, "own_host": f"{host} {dead}"}
    with pytest.raises(UserError, match="the last 5 addresses of pictures gave no answer"):
        build_from("obelics", [source], tmp_path / "to", workers=1, options=options)
    monkeypatch.setattr(fetching, "_MOST_IN_A_ROW", 500)
    info = build_from("obelics", [source], tmp_path / "to", workers=1, options=options)["splits"]["train"]
    assert (info["images"], set(info["lost"])) == (10, {"a picture that was not fetched: the connection failed"})
    assert set(Pictures.asked.values()) == {1}


def test_a_build_that_is_killed_fetches_nothing_twice(tmp_path: Path, host: str) -> None:
    """Not of shards that are done, and not of those under way."""
    rows: list[list[str | None]] = [[f"http://{host}/numbered/{n}", None] for n in range(300)]
    source = pages(tmp_path / "from", rows, files=2)
    script = (
        "from pathlib import Path; from mm1.data import build; build._JOINED_BYTES = 0\n"
        f"build.build_from('obelics', [{source!r}], Path({str(tmp_path / 'to')!r}), workers=1, "
        f"options={{'fetch': True, 'own_host': {host!r}}})"
    )
    Pictures.delay = 0.05
    started = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    while len(Pictures.asked) < 220:
        assert started.poll() is None
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    Pictures.delay = 0.0
    before = Counter(Pictures.asked)
    assert len(before) < 300
    assert list((tmp_path / "to.building-train").glob("000001.kept-*"))
    exec(script, {})
    again = {path for path, count in Pictures.asked.items() if count > 1}
    assert len(again) <= fetching.THREADS  # those that were on their way
    documents = list(Split(tmp_path / "to" / "train"))
    assert [document.images[0].data for document in documents] == [picture(n) for n in range(300)]
    assert not (tmp_path / "to.building-train").exists()
