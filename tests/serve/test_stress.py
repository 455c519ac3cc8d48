"""A short run of what `benchmarks/serve_stress.py` does for a minute: nonsense, many clients, clients that leave."""

from __future__ import annotations

import asyncio
import importlib
import random
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from tests.serve.conftest import Served, make_service, serving

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def stress() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("serve_stress")


def test_bad_bodies_are_refused_and_harm_nobody(chat: Served, stress: ModuleType) -> None:
    bodies = stress.bad_bodies(3)
    draw = random.Random(3)

    async def run() -> list[int]:
        async with httpx.AsyncClient(base_url=chat.url, timeout=60) as client:
            return [await stress.send_bad(client, bodies, draw) for _ in range(150)]

    statuses = asyncio.run(run())
    assert max(statuses) < 500
    assert statuses.count(200) < 50
    assert chat.under_way() == 0


def test_many_clients_of_whom_some_leave_are_all_answered(stress: ModuleType, chat_model: Path) -> None:
    with serving(make_service(chat_model, batch_size=8)) as served:
        assert asyncio.run(stress.stress(served.url, seconds=3, clients=12, bad=8))
