"""`mm1 serve` as a process: it answers as `mm1 caption` does, and ends in order."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from mm1.cli import app
from mm1.evaluate.caption import MAX_NEW_TOKENS, STOP, caption_image
from tests.serve.conftest import png, shown


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[Any, str, list[str]]]:
    """Yield a server's process, its address and what it prints."""
    command = [sys.executable, "-m", "mm1", "serve", *arguments, "--port", "0"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert started.stderr is not None
    said: list[str] = []
    try:
        for line in started.stderr:
            said.append(line)
            if found := re.search(r"answers at (http://\S+)/v1", line):
                break
        else:
            raise AssertionError("".join(said))
        reading = threading.Thread(target=lambda: said.extend(started.stderr or ()), daemon=True)
        reading.start()
        yield started, found[1], said
    finally:
        started.kill()
        started.wait()


def test_the_words_of_caption(chat_model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "red.png"
    picture.write_bytes(png("red"))
    with process(str(chat_model), "--name", "mine", MM1_API_KEY="abc") as (server, url, said):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        client: Any = OpenAI(base_url=f"{url}/v1", api_key="abc", max_retries=0)
        assert [model.id for model in client.models.list()] == ["mine"]
        given: Any = {"messages": shown(png("red"), "what is it?"), "stop": list(STOP), "max_tokens": MAX_NEW_TOKENS}
        stream = client.chat.completions.create(model="mine", **given, stream=True)
        words = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert words == caption_image(chat_model, picture, "what is it?")
        ends(server, said, client, "mine", signal.SIGTERM, 0)


def test_ctrl_c_lets_answers_end(chat_model: Path) -> None:
    with process(str(chat_model)) as (server, url, said):
        ends(server, said, OpenAI(base_url=f"{url}/v1", api_key="any"), str(chat_model), signal.SIGINT, 130)


def ends(server: Any, said: list[str], client: Any, model: str, sent: int, code: int) -> None:
    """Send a signal while an answer is streamed: it is finished, and the server ends at once after it."""
    messages = shown(png("red"), "what is it?")
    stream = iter(client.chat.completions.create(model=model, messages=messages, max_tokens=60, stream=True))
    next(stream)
    server.send_signal(sent)
    assert list(stream)[-1].choices[0].finish_reason == "length"
    assert server.wait(10) == code
    assert "ending: requests under way are answered" in "".join(said)
    assert "Traceback" not in "".join(said)


def run(*arguments: str, **environment: str) -> str:
    result = CliRunner().invoke(app, ["serve", *arguments], env=environment)
    return f"{type(result.exception).__name__}: {result.exception}"


def test_mistakes_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "UserError: 'runs/none' is no model" in run("runs/none", "--port", "0")
    assert "(or MM1_API_KEY) is empty" in run("runs/none", MM1_API_KEY="")
    assert "--allow-host http://a: that is no host" in run("runs/none", "--allow-host", "http://a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--host 127.0.0.1 --port {port}: the address can't be listened on" in run("runs/none", "--port", port)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "mm1 serve needs fastapi, uvicorn, openai, prometheus_client: pip install 'mm1[serve]'" in run("a")
