"""Pictures at addresses: only from allowed hosts, and nothing that leads elsewhere."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mm1.errors import UserError
from mm1.fetch.addresses import is_public
from mm1.serve.addresses import allowed_host, fetch
from mm1.serve.problems import Problem
from tests.serve.conftest import make_service, png, serving, shown

ASKED: list[str] = []


class Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ASKED.append(self.path)
        if self.path.startswith("/to"):
            self.send_response(302)
            self.send_header("Location", "/red.png")
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif self.path == "/drip":
            for sign in b"HTTP/1.0 200 OK\r\nX-A: " + b"a" * 200:
                self.wfile.write(bytes([sign]))
                time.sleep(0.1)
        elif self.path == "/red.png?a=1":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png("red"))
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def test_an_address_is_answered_as_its_picture_is(chat_model: Path, port: int) -> None:
    address = f"http://127.0.0.1:{port}/red.png?a=1"
    with serving(make_service(chat_model, hosts=(f"127.0.0.1:{port}",))) as served:
        asked = shown(png("red"), "what is it?")
        expected = served.chat(asked, max_tokens=5).json()["choices"]
        asked[0]["content"][0]["image_url"]["url"] = address
        assert served.chat(asked, max_tokens=5).json()["choices"] == expected


def refused(url: str, *hosts: str, seconds: float = 5, most: int = 10_000) -> str:
    with pytest.raises(Problem) as caught:
        fetch(url, hosts, most, seconds, "images[0]")
    assert caught.value.status == 400
    assert caught.value.message.startswith("images[0]: ")
    return caught.value.message


def test_a_picture_of_an_allowed_host_is_fetched(port: int) -> None:
    assert fetch(f"http://127.0.0.1:{port}/red.png?a=1", [f"127.0.0.1:{port}"], 10_000, 5, "x") == png("red")


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.example/a.png",
        "http://good.example.evil.example/",
        "http://evilgood.example/",
        "http://good.example:8080/",  # another port is another service
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://localhost/",
    ],
)
def test_other_hosts_are_refused(url: str) -> None:
    assert "are not fetched from" in refused(url, "good.example")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "../picture.png",
        "ftp://good.example/a",
        "gopher://good.example/",
        "http:good.example",
        "http:///good.example",
        "http://good.example@evil.example/",
        "http://user:word@good.example/",
        "http://evil.example\\@good.example/",
        "http://good.example\\.evil.example/",
        "http://good.example/a b",
        "http://good.example/\r\nHost: evil",
        "http://good.example\u3002evil.example/",
        "http://good.example:port/",
        "http://[good.example/",
        "//good.example/",
        "",
        "x" * 1000,
    ],
)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    assert "neither a data URL nor a plain http or https address" in refused(url, "good.example", "evil.example")


def test_a_name_that_points_inwards_is_refused(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    def found(host: str, port: int, **_: Any) -> Any:
        return [(2, 1, 6, "", ("93.184.216.34", port)), (2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    count = len(ASKED)
    assert "an address that is not public" in refused(f"http://good.example:{port}/red.png?a=1", f"good.example:{port}")
    assert "an address that is not public" in refused("http://localhost/", "localhost")
    assert len(ASKED) == count


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_addresses_that_are_public() -> None:
    assert all(map(is_public, ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]))


def test_redirects_are_not_followed(port: int) -> None:
    count = len(ASKED)
    assert "redirects are not followed" in refused(f"http://127.0.0.1:{port}/to", f"127.0.0.1:{port}")
    assert len(ASKED) == count + 1


def test_what_cannot_be_had_is_one_sentence(port: int) -> None:
    hosts = (f"127.0.0.1:{port}", "127.0.0.1:1", "no.such.invalid")
    assert "the host answered 404" in refused(f"http://127.0.0.1:{port}/none", *hosts)
    assert "more than 20 bytes" in refused(f"http://127.0.0.1:{port}/red.png?a=1", *hosts, most=20)
    assert "can't be fetched" in refused("http://127.0.0.1:1/", *hosts)
    assert "can't be fetched" in refused("http://no.such.invalid/", *hosts)


@pytest.mark.parametrize("path", ["slow", "drip"])
def test_a_slow_host_is_left(port: int, path: str) -> None:
    began = time.monotonic()
    assert "can't be fetched" in refused(f"http://127.0.0.1:{port}/{path}", f"127.0.0.1:{port}", seconds=0.5)
    assert time.monotonic() - began < 3


def test_values_of_the_option() -> None:
    assert allowed_host("Images.Example.org") == "images.example.org"
    assert allowed_host("127.0.0.1:9000") == "127.0.0.1:9000"
    assert allowed_host("[::1]:9000") == "::1:9000"
    for wrong in ("", "http://a.example", "*.example.org", "a.example/path", "a@b", "a.example:port", "a b"):
        with pytest.raises(UserError, match="that is no host"):
            allowed_host(wrong)
