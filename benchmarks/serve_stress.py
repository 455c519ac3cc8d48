"""Does `mm1 serve` stand 32 clients for a minute, of whom some send nonsense and some leave?

    python benchmarks/serve_stress.py                          # a model of the demo's sizes with random weights
    python benchmarks/serve_stress.py runs/sft-demo --seconds 600

First a thousand bad bodies and pictures, then the clients: good requests, streamed and not, with pictures; bad ones;
clients that leave in the middle of an answer. It fails if a request gets a status of 500 or above or no answer, or if
the server's memory grows: its resident size is read every second, and the last fifth of the time must not lie above the
second fifth by more than a tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import copy
import json
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from serve import body, demo_sized, server

PATHS = ("/v1/chat/completions", "/v1/completions")
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1e308, -0.0, 2**31, 2**63, 10**30, "", " ", "\x00", "é", "\ud800", "\u202e", "🙂" * 50,
    "a" * 3000, [], [[]], {}, {"a": {"a": {}}}, [None], ["x"] * 40, "NaN", "<image>", "data:image/png;base64,AAAA",
    "http://127.0.0.1:1/a.png", "file:///etc/passwd",
)  # fmt: skip
"""Values that stand where others are meant."""


def bad_bodies(seed: int) -> Iterator[bytes]:
    """Yield bodies without end that are bad, or good only by chance."""
    draw = random.Random(seed)
    while True:
        good = {**body(draw.randrange(1000), 2), "stream": draw.random() < 0.5, "temperature": 0.5, "stop": ["x"]}
        if draw.random() < 0.3:
            good = {"prompt": "a <image> b", "images": [picture(draw)], "max_tokens": 2}
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            spoil(good, draw)
        text = json.dumps(good).encode()
        if draw.random() < 0.2:
            text = cut(text, draw)
        elif draw.random() < 0.05:
            depth = draw.randrange(10, 20_000)
            text = b'{"messages":' + b"[" * depth + b"]" * depth + b"}"
        yield text


def spoil(value: Any, draw: random.Random) -> None:
    """Change something somewhere in a body: a value, a name, a picture."""
    places = [(value, key) for key in value]
    for holder, key in places:
        inner = holder[key]
        if isinstance(inner, dict | list):
            places += [(inner, k) for k in (inner if isinstance(inner, dict) else range(len(inner)))]
    if not places:
        return
    holder, key = draw.choice(places)
    change = draw.random()
    if change < 0.25 and isinstance(holder, dict):
        holder[draw.choice(("role", "n", "logprobs", "x" * 500, "\ud800", "messages", "stop"))] = copy.deepcopy(
            draw.choice(ODD)
        )
    elif change < 0.5 and key in ("url", "content"):
        holder[key] = picture(draw)
    elif change < 0.6:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(draw.choice(ODD))


def picture(draw: random.Random) -> str:
    """Return a data URL of a picture that is damaged."""
    url = str(body(draw.randrange(1000), 1)["messages"][0]["content"][0]["image_url"]["url"])
    head, _, text = url.partition(",")
    damaged = bytearray(base64.b64decode(text))
    if draw.random() < 0.5:
        damaged = damaged[: draw.randrange(len(damaged))]
    else:
        for _ in range(draw.choice((1, 3, 30))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    text = base64.b64encode(damaged).decode()
    return f"{head},{cut(text.encode(), draw).decode('latin-1')}" if draw.random() < 0.2 else f"{head},{text}"


def cut(text: bytes, draw: random.Random) -> bytes:
    """Return bytes without some of them, or with others in between."""
    place = draw.randrange(len(text) + 1)
    return draw.choice((text[:place], text[:place] + bytes([draw.randrange(128)]) + text[place:], text[place:]))


async def send_bad(client: httpx.AsyncClient, bodies: Iterator[bytes], draw: random.Random) -> int:
    """Send a bad body, and return the status; what is refused must say why."""
    kind = draw.choice(("application/json",) * 9 + ("text/plain",))
    response = await client.post(draw.choice(PATHS), content=next(bodies), headers={"content-type": kind})
    if response.status_code >= 400:
        assert response.json()["error"]["message"], response.text
    return response.status_code


async def send_good(client: httpx.AsyncClient, draw: random.Random) -> int:
    """Send a good request, and return the status; an answer must be whole."""
    request = body(draw.randrange(1000), draw.randrange(1, 30))
    if draw.random() < 0.5:
        response = await client.post(PATHS[0], json={**request, "stream": False})
        assert response.status_code != 200 or response.json()["choices"][0]["finish_reason"]
        return response.status_code
    async with client.stream("POST", PATHS[0], json=request) as response:
        lines = [line async for line in response.aiter_lines() if line]
    assert response.status_code != 200 or lines[-1] == "data: [DONE]", lines[-1:]
    return response.status_code


async def leave(client: httpx.AsyncClient, draw: random.Random) -> int:
    """Send a request and leave before its end."""
    request = body(draw.randrange(1000), 200)
    try:
        async with asyncio.timeout(draw.random()):
            async with client.stream("POST", PATHS[0], json=request) as response:
                await anext(response.aiter_bytes())
        return 0
    except (TimeoutError, StopAsyncIteration, httpx.HTTPError):
        return 0


async def figures(client: httpx.AsyncClient) -> dict[str, float]:
    """Return the server's own figures, without labels."""
    lines = (await client.get("/metrics")).text.splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if re.match(r"\w+ ", line))}


async def stress(url: str, seconds: float, clients: int, bad: int) -> bool:
    """Run the clients, print what came of it, and return whether the server stood it."""
    console = Console()
    statuses: Counter[str] = Counter()
    bodies, draw = bad_bodies(0), random.Random(1)
    sizes: list[tuple[float, float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=180, limits=httpx.Limits(max_connections=2 * clients)) as client:

        async def work_badly() -> None:
            for _ in range(bad // 8):
                statuses[f"bad {await send_bad(client, bodies, draw)}"] += 1

        await asyncio.gather(*(work_badly() for _ in range(8)))
        console.print(f"bad bodies: {dict(sorted(statuses.items()))}")
        until = time.monotonic() + seconds

        async def work() -> None:
            while time.monotonic() < until:
                which = draw.random()
                if which < 0.6:
                    statuses[f"good {await send_good(client, draw)}"] += 1
                elif which < 0.85:
                    statuses[f"bad {await send_bad(client, bodies, draw)}"] += 1
                else:
                    await leave(client, draw)
                    statuses["left"] += 1

        async def weigh() -> None:
            async with httpx.AsyncClient(base_url=url, timeout=60) as own:
                while time.monotonic() < until:
                    size = (await figures(own))["process_resident_memory_bytes"] / 2**20
                    sizes.append((time.monotonic(), size))
                    await asyncio.sleep(1)

        await asyncio.gather(weigh(), *(work() for _ in range(clients)))
        await asyncio.sleep(1)
        left = await figures(client)
        asked = await send_good(client, draw)
    fifth = max(1, len(sizes) // 5)
    early, late = (statistics.median(size for _, size in part) for part in (sizes[fifth : 2 * fifth], sizes[-fifth:]))
    console.print(dict(sorted(statuses.items())))
    console.print(f"resident memory: {early:.0f} MiB in the second fifth of the time, {late:.0f} MiB in the last")
    console.print(
        f"requests left over: {left['mm1_requests_under_way']:.0f}, waiting {left['mm1_requests_waiting']:.0f}"
    )
    failed = [status for status in statuses if re.search(r" 5\d\d$", status)]
    console.print(f"statuses of 500 and above: {', '.join(failed) or 'none'}; one more request: {asked}")
    return not failed and late <= 1.1 * early and not left["mm1_requests_under_way"] and asked == 200


def main() -> None:
    """Run it, and exit with 1 if the server did not stand it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?", help="default: one of the demo's sizes with random weights")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--bad", type=int, default=1000, help="bad bodies that are sent first")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or str(demo_sized(Path(folder) / "model"))
        with server(model) as url:
            stood = asyncio.run(stress(url, given.seconds, given.clients, given.bad))
    raise SystemExit(0 if stood else 1)


if __name__ == "__main__":
    main()
