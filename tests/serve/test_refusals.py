"""What is refused: with a sentence, the right status, and before it costs much."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from mm1.serve.guard import LOOPBACK
from tests.serve.conftest import Served, data_url, make_service, png, serving, shown


def error(response: httpx.Response, status: int) -> str:
    """Return the sentence of a refusal, which has OpenAI's form."""
    assert response.status_code == status, response.text
    (body,) = response.json().values()
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"]
    assert "\n" not in body["message"]
    return str(body["message"])


def picture(url: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n": 2}, "n: this server does not have this setting: leave it out or set it to 1"),
        ({"logprobs": True}, "logprobs: this server does not have"),
        ({"logprobs": 0}, "logprobs: this server does not have"),
        ({"top_logprobs": 3}, "top_logprobs: this server"),
        ({"presence_penalty": 0.5}, "presence_penalty: this server"),
        ({"frequency_penalty": -1}, "frequency_penalty: this server"),
        ({"logit_bias": {"5": 1}}, "logit_bias: this server"),
        ({"tools": [{"type": "function"}]}, "tools: this server"),
        ({"response_format": {"type": "json_object"}}, "response_format: this server"),
        ({"top_k": 5}, "top_k: this server does not have this setting: leave it out"),
        ({"temperature": 3}, "temperature: input should be less than or equal to 2"),
        ({"temperature": 1e-30}, "temperature: 0 or from 0.01 to 2"),
        ({"temperature": True}, "temperature: input should be a valid number"),
        ({"top_p": 0}, "top_p: input should be greater than 0"),
        ({"max_tokens": 0}, "max_tokens: input should be greater than or equal to 1"),
        ({"max_tokens": 10**40}, "max_tokens: an answer has at most 512 tokens here"),
        ({"max_tokens": 1.5}, "max_tokens: input should be a valid integer"),
        ({"seed": 2**70}, "seed: input should be less than"),
        ({"stop": ["a"] * 17}, "stop: list should have at most 16 items"),
        ({"stop": 1}, "stop: input should be a valid string or list"),
        ({"stop": [1]}, "stop[0]: input should be a valid string"),
        ({"stream": "yes"}, "stream: input should be a valid boolean"),
        ({"messages": []}, "messages: list should have at least 1 item"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role: input should be"),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages[0].content: input should be a valid string or list",
        ),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content: list should have at least 1"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0].name: this server"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages[0]: the last message must be the user's"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages[0].content[0]: input tag 'audio'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text: field required",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half a surrogate pair"),
        ({"messages": [{"role": "user", "content": "a"}] * 2000}, "messages: more than 1,024"),
        ({"messages": shown("a" * 200_000)}, "the prompt is too long"),
        ({"messages": shown("many words " * 3000)}, "the model takes 4,096 with the answer"),
        ({"model": "gpt-4"}, "'gpt-4' is not served here: ask for 'tiny'"),
        ({"messages": picture("https://elsewhere.example/a.png")}, "pictures are not fetched from elsewhere.example"),
        ({"messages": picture({"url": "file:///etc/passwd"})}, "neither a data URL nor a plain http"),
        ({"messages": picture("data:image/png,abc")}, "write a data URL as data:image/png;base64"),
        ({"messages": picture("data:image/png;base64,%%%")}, "the data URL is no base64"),
        ({"messages": picture("data:image/png;base64,")}, "picture of zero bytes"),
        ({"messages": picture(data_url(b"GIF89a"))}, "not a picture, or a damaged one"),
        ({"messages": picture(data_url(png("red")[:60]))}, "picture 1: not a readable picture"),
        ({"messages": shown(png("red"), png("blue")[:60], "a")}, "picture 2: not a readable picture"),
        ({"messages": picture(data_url(bomb(60_000, 60_000)))}, "more than 100,000,000 pixels"),
        ({"messages": picture(data_url(bomb(9_000, 9_000)))}, "more than 64,000,000 pixels"),
        ({"messages": picture({"url": data_url(png("red")), "detail": "best"})}, "detail: input should be 'auto'"),
        (
            {"messages": [{"role": "system", "content": picture(data_url(png("red")))[0]["content"]}]},
            "only the user shows",
        ),
    ],
)
def test_a_bad_setting_is_one_sentence(chat: Served, settings: dict[str, Any], sentence: str) -> None:
    body = {"messages": shown("a"), "max_tokens": 1, **settings}
    response = chat.http.post(
        "/v1/chat/completions", content=str_json(body), headers={"content-type": "application/json"}
    )
    assert sentence in error(response, 404 if "model" in settings else 400)


def str_json(body: Any) -> bytes:
    return json.dumps(body).encode()


def test_settings_that_change_nothing_are_taken(chat: Served) -> None:
    # What clients send without being asked, such as an answer of before, as `model_dump` writes it.
    said: dict[str, Any] = {
        "role": "assistant",
        "content": "",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "tool_calls": [],
    }
    neutral: dict[str, Any] = {
        "n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": None, "tools": [],
        "tool_choice": "none", "user": "me", "metadata": {"a": "b"}, "store": False,
        "response_format": {"type": "text"},
        "stream_options": None, "stop": None, "seed": None, "temperature": None, "top_p": None, "max_tokens": 2,
    }  # fmt: skip
    messages = [*shown("a"), said, *shown("b")]
    assert chat.chat(messages, **neutral).json()["choices"] == chat.chat(messages, max_tokens=2).json()["choices"]


def test_a_pre_trained_model_is_asked_for_completions(text: Served) -> None:
    sentence = error(text.chat(shown("a")), 400)
    assert "mm1 sft" in sentence
    assert "/v1/completions" in sentence
    places = text.http.post("/v1/completions", json={"prompt": "<image> and <image>", "images": [data_url(png("red"))]})
    assert "2 places for pictures (<image>), and images has 1" in error(places, 400)
    assert "images[0]" in error(text.http.post("/v1/completions", json={"prompt": "<image>", "images": ["x"]}), 400)
    assert "echo: this server" in error(text.http.post("/v1/completions", json={"prompt": "a", "echo": True}), 400)
    assert "prompt" in error(text.http.post("/v1/completions", json={"prompt": ["a", "b"]}), 400)
    assert text.http.post("/v1/completions", json={"prompt": ["a"]}).json()["usage"]["completion_tokens"] <= 16


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"a"', 400),
        (b"null", 400),
        (b'{"messages": NaN}', 400),
        (b'{"a":' * 100_000, 400),
        (b'{"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
        (b'{"max_tokens":' + b"9" * 10_000 + b"}", 400),
        (b"\xff\xfe", 400),
        (b'{"messages": "\\ud800"}', 400),
    ],
)
def test_what_is_no_body_is_refused(chat: Served, content: bytes, status: int) -> None:
    error(chat.http.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"}), status)


def test_other_addresses_and_kinds_are_refused(chat: Served) -> None:
    # The library's server would load any model, unload ours, and show pages with scripts from elsewhere.
    for path in ("/load_model", "/reset", "/v1/responses", "/v1/audio/transcriptions", "/v1/systemone"):
        error(chat.http.post(path, json={"model": "owner/name"}), 404)
    for path in ("/docs", "/redoc", "/", "/v1/models/other"):
        error(chat.http.get(path), 404)
    error(chat.http.get("/v1/chat/completions"), 405)
    error(chat.http.post("/v1/chat/completions", data={"a": "b"}), 415)


def test_the_key(chat_model: Path) -> None:
    with serving(make_service(chat_model), key="sécret") as served:
        assert served.http.get("/healthz").status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/none"):
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c"}, {"Authorization": "c"}):
                response = served.http.get(path, headers=given)
                assert "Authorization: Bearer" in error(response, 401)
        with pytest.raises(openai.AuthenticationError):
            served.openai.models.list()
        right = {"Authorization": "Bearer sécret".encode()}
        assert served.http.get("/v1/models", headers=right).status_code == 200  # type: ignore[arg-type]  # bytes do


def test_a_page_of_another_name_gets_no_answer(chat_model: Path) -> None:
    with serving(make_service(chat_model), hosts=LOOPBACK) as served:
        for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
            assert served.http.get("/healthz", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]:80"):
            assert "this machine only" in error(served.http.get("/healthz", headers={"Host": host}), 403)


def test_a_request_that_is_too_large(chat_model: Path) -> None:
    with serving(make_service(chat_model, body_bytes=100_000)) as served:
        large = b" " * 300_000
        assert "more than 100,000 bytes" in error(served.http.post("/v1/completions", content=large), 413)
        pieces = (b" " * 10_000 for _ in range(30))  # no length is said before
        assert "more than 100,000 bytes" in error(served.http.post("/v1/completions", content=pieces), 413)
        assert served.chat(shown("a"), max_tokens=1).status_code == 200


def test_a_full_queue_and_a_late_answer(chat_model: Path) -> None:
    service = make_service(chat_model, endless=True, batch_size=1, queue=1, seconds=2.5, max_tokens=4000)
    with serving(service) as served, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(served.chat, shown("a"), max_tokens=4000) for _ in range(2)]
        while served.http.get("/metrics").text.count("mm1_requests_under_way 2.0") == 0:
            time.sleep(0.02)
        refused = served.chat(shown("a"))
        assert "2 requests are under way" in error(refused, 429)
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        for answer in asked:
            late = answer.result()
            assert "not done within 2.5 s" in error(late, 504)
            assert late.headers["x-should-retry"] == "false"
        while served.http.get("/metrics").text.count("mm1_requests_under_way 0.0") == 0:
            time.sleep(0.02)
        assert served.chat(shown("a"), max_tokens=1).status_code == 200
        stream = served.openai.chat.completions.create(
            model="tiny",
            messages=shown("a"),
            max_tokens=4000,
            stream=True,
        )
        with pytest.raises(openai.APIError, match="not done within"):
            list(stream)
        counted = served.http.get("/metrics").text
        assert 'mm1_requests_total{path="/v1/chat/completions",status="504"} 2.0' in counted
        assert 'mm1_requests_total{path="/v1/chat/completions",status="429"} 1.0' in counted


@pytest.mark.parametrize("stream", [True, False])
def test_generation_ends_when_the_client_leaves(chat_model: Path, stream: bool) -> None:
    service = make_service(chat_model, endless=True, batch_size=1, max_tokens=4000)
    with serving(service) as served:
        body = {"messages": shown("a"), "max_tokens": 4000, "stream": stream}
        tokens = service.metrics.answer_tokens._value
        with httpx.Client(base_url=served.url, timeout=None if stream else 0.5) as leaving:
            if stream:
                with leaving.stream("POST", "/v1/chat/completions", json=body) as response:
                    next(response.iter_lines())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    leaving.post("/v1/chat/completions", json=body)
        assert served.chat(shown("b"), max_tokens=2).status_code == 200  # it waits for the batch before
        written = tokens.get()
        assert 3 <= written < 3900
        time.sleep(0.2)
        assert tokens.get() == written
        assert service.metrics.given_up._value.get() == 1


def test_whoever_left_the_queue_takes_no_place(chat_model: Path) -> None:
    service = make_service(chat_model, endless=True, batch_size=1, max_tokens=4000)
    with serving(service) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.chat, shown("a"), max_tokens=100)
        for _ in range(3):
            with httpx.Client(base_url=served.url, timeout=0.2) as leaving, pytest.raises(httpx.ReadTimeout):
                leaving.post("/v1/chat/completions", json={"messages": shown("a"), "max_tokens": 4000})
        assert first.result().status_code == 200
        batches = service.metrics.batch._sum.get()
        assert served.chat(shown("b"), max_tokens=2).status_code == 200
        assert service.metrics.batch._sum.get() == batches + 1
        assert service.metrics.waiting._value.get() == 0


def test_a_connection_is_kept_after_good_and_bad_requests(chat: Served) -> None:
    kept = http.client.HTTPConnection(chat.url.removeprefix("http://"), timeout=20)
    kept.connect()
    first = kept.sock
    for body in (b'{"messages": 1}', b"{", str_json({"messages": shown("a"), "max_tokens": 1})):
        kept.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = kept.getresponse()
        answer.read()
        assert answer.getheader("Connection") != "close"
        assert kept.sock is first
    assert answer.status == 200
    kept.close()


def test_a_client_that_reads_nothing_holds_its_place_only_so_long(chat_model: Path) -> None:
    service = make_service(chat_model, batch_size=1, queue=0, seconds=1)
    with serving(service) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
            while served.chat(shown("a"), max_tokens=1).status_code == 200:
                time.sleep(0.02)
            half.settimeout(20)
            assert b"504" in half.recv(1000)
        assert served.chat(shown("a"), max_tokens=1).status_code == 200


def test_a_failure_of_the_model_is_an_answer(chat_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(make_service(chat_model)) as served:
        with monkeypatch.context() as patch:
            patch.setattr(served.service.inputs.model, "generate", None)
            assert "log says why" in error(served.chat(shown("a")), 500)
        assert served.chat(shown("a"), max_tokens=1).status_code == 200
        assert served.http.get("/health").status_code == 200
        served.service.engine.stop()
        assert "shutting down" in error(served.chat(shown("a")), 503)
        assert served.http.get("/healthz").status_code == 503
        assert served.http.get("/health").status_code == 503


def test_answers_under_way_end_before_the_server_does(chat_model: Path) -> None:
    with serving(make_service(chat_model)) as served:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(served.chat(shown("a"), max_tokens=40)))
        asking.start()
        while served.service.metrics.under_way._value.get() < 1:
            time.sleep(0.005)
        served.server.should_exit = True
        asking.join(30)
        assert answers[0].status_code == 200
