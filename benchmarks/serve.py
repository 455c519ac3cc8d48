"""How many requests does `mm1 serve` answer in a second, and how soon does an answer begin?

    python benchmarks/serve.py                 # a model of the demo's sizes with random weights
    python benchmarks/serve.py runs/sft-demo   # a model of yours, which must take turns

Two servers of the same model take turns: one answers requests one at a time (--batch-size 1), the other in batches of
up to 16. So many clients each ask again as soon as they have their answer: a picture and a question, greedy, streamed.
The answers of both must be equal, word for word.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image as PILImage
from rich.console import Console
from rich.table import Table

CLIENTS = (1, 4, 16)
QUESTIONS = ("what is this?", "what color is the shape on the left?", "is there a circle in it? answer yes or no.")


def demo_sized(folder: Path) -> Path:
    """Write a chat model of the demo's sizes, with random weights, that seldom ends an answer by itself."""
    import torch

    from mm1.model import build_model
    from mm1.model.ends import end_with_turns
    from mm1.processing.chat import default_chat_template
    from mm1.processing.processor import build_processor
    from mm1.processing.tokenizer import train_tokenizer
    from mm1.recipe import load_recipe

    recipe = load_recipe("demo")
    texts = [f"the {n} colors of shape {n * n} on a {noun}" for n in range(2000) for noun in ("bus", "page", "tree")]
    tokenizer = train_tokenizer([*texts, *QUESTIONS], 2048)
    processor = build_processor(tokenizer, image_size=64, tokens_per_image=16, chat_template=default_chat_template())
    torch.manual_seed(0)
    model = build_model(
        recipe.model,
        vocab_size=2048,
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    for parameter in model.parameters():  # small weights answer everything alike
        parameter.data.mul_(2.0)
    end_with_turns(model, processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def body(number: int, tokens: int) -> dict[str, Any]:
    """Return request `number`: its own picture, one of the questions."""
    picture = PILImage.new("RGB", (64, 64), (number * 37 % 256, number * 91 % 256, number * 11 % 256))
    picture.paste((255, 255, 255), (number % 40, number % 30, number % 40 + 20, number % 30 + 20))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": QUESTIONS[number % len(QUESTIONS)]},
    ]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, "stream": True}


@contextmanager
def server(model: str, *options: str) -> Iterator[str]:
    """Yield the address of a server."""
    command = [sys.executable, "-m", "mm1", "serve", model, "--port", "0", "--queue", "256", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"answers at (http://\S+)/v1", line):
                break
        else:
            raise SystemExit("the server did not start")
        log = process.stderr  # a pipe that nobody reads would stop the server
        threading.Thread(target=lambda: [print(line, end="", file=sys.stderr) for line in log], daemon=True).start()
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


async def ask(client: httpx.AsyncClient, number: int, tokens: int) -> tuple[str, float, float]:
    """Return an answer's words, the seconds to its first token, and to its end."""
    began, first, words = time.perf_counter(), 0.0, ""
    async with client.stream("POST", "/v1/chat/completions", json=body(number, tokens)) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            first = first or time.perf_counter() - began
            words += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
    return words, first, time.perf_counter() - began


async def measure(url: str, clients: int, requests: int, tokens: int) -> tuple[float, float, float, dict[int, str]]:
    """Return requests/s, the medians of first token and end in seconds, and the answers."""
    answers: dict[int, str] = {}
    firsts, ends = [], []
    numbers = iter(range(requests))

    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=clients)) as client:

        async def work() -> None:
            for number in numbers:
                answers[number], first, end = await ask(client, number, tokens)
                firsts.append(first)
                ends.append(end)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(clients)))
        rate = requests / (time.perf_counter() - began)
    return rate, statistics.median(firsts), statistics.median(ends), answers


def main() -> None:
    """Measure both servers, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?", help="default: one of the demo's sizes with random weights")
    parser.add_argument("--tokens", type=int, default=24, help="tokens of the longest answer")
    parser.add_argument("--requests", type=int, default=64, help="requests of a round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    table = Table(
        "clients", "batches", "requests/s", "first token, ms", "answer, ms", title=given.model or "demo's sizes"
    )
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or str(demo_sized(Path(folder) / "model"))
        with server(model, "--batch-size", "1") as alone, server(model, "--batch-size", "16") as together:
            urls = {"of 1": alone, "up to 16": together}
            for url in urls.values():
                asyncio.run(measure(url, 1, 4, given.tokens))
            for clients in CLIENTS:
                rows: dict[str, list[tuple[float, float, float, dict[int, str]]]] = {kind: [] for kind in urls}
                for _ in range(given.rounds):
                    for kind, url in urls.items():
                        rows[kind].append(asyncio.run(measure(url, clients, given.requests, given.tokens)))
                expected = rows["of 1"][0][3]
                different = sum(
                    answers[number] != words
                    for runs in rows.values()
                    for *_, answers in runs
                    for number, words in expected.items()
                )
                if different:
                    raise SystemExit(f"{different} answers differ from those to one request at a time")
                rates = {}
                for kind, runs in rows.items():
                    rate, first, end = map(statistics.median, zip(*(run[:3] for run in runs), strict=True))
                    rates[kind] = rate
                    table.add_row(str(clients), kind, f"{rate:.1f}", f"{first * 1000:.0f}", f"{end * 1000:.0f}")
                table.add_row("", "ratio", f"{rates['up to 16'] / rates['of 1']:.2f}x", "", "", end_section=True)
    Console().print(table)
    print(f"all answers equal; {len(set(expected.values()))} different ones of {given.requests}")


if __name__ == "__main__":
    main()
