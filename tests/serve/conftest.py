"""Two tiny models, one of them with a chat template, and servers of them in this process."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from openai import OpenAI
from PIL import Image as PILImage

from mm1.evaluate.models.loading import load_generator
from mm1.model import build_model
from mm1.model.ends import end_with_turns
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import ModelRecipe
from mm1.serve.app import build_app
from mm1.serve.inputs import inputs_of
from mm1.serve.limits import Limits
from mm1.serve.metrics import Metrics
from mm1.serve.server import _bind, _Server
from mm1.serve.service import Service

TEXTS = [
    f"USER: what is in picture {n}?\nASSISTANT: a {c} square, naïve café 🙂 日本" for n in range(9) for c in "abcd"
]


def png(colour: str, size: tuple[int, int] = (20, 20)) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shown(*parts: Any) -> list[dict[str, Any]]:
    """A user's turn: texts, and pictures as bytes."""
    content = [
        {"type": "image_url", "image_url": {"url": data_url(part)}}
        if isinstance(part, bytes)
        else {"type": "text", "text": part}
        for part in parts
    ]
    return [{"role": "user", "content": content}]


def save_model(folder: Path, template: str | None, seed: int = 0) -> Path:
    tokenizer = train_tokenizer(TEXTS, 340)
    processor = build_processor(tokenizer, image_size=16, tokens_per_image=4, chat_template=template)
    torch.manual_seed(seed)
    model = build_model(
        ModelRecipe.model_validate(
            {
                "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
                "connector": {"kind": "average_pool", "num_tokens": 4},
                "language_model": {"hidden_size": 32, "num_layers": 2, "num_heads": 2},
            }
        ),
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    for parameter in model.parameters():  # small weights answer every prompt alike
        parameter.data.mul_(4.0)
    end_with_turns(model, processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "chat", default_chat_template())


@pytest.fixture(scope="session")
def pretrained_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "pretrained", None)


class Served:
    """A server in a thread of this process."""

    def __init__(self, service: Service, url: str, server: Any) -> None:
        self.service, self.url, self.server = service, url, server
        # Its types want typed dictionaries, which tests don't write.
        self.openai: Any = OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60)
        self.http = httpx.Client(base_url=url, timeout=60)

    def chat(self, messages: list[dict[str, Any]], **settings: Any) -> Any:
        return self.http.post("/v1/chat/completions", json={"messages": messages, **settings})

    def under_way(self, seconds: float = 30) -> int:
        """Return the requests under way when none is left or time is up: one is counted after its client has it all."""
        end = time.monotonic() + seconds
        while (count := int(self.service.metrics.under_way._value.get())) and time.monotonic() < end:
            time.sleep(0.01)
        return count


def make_service(folder: Path, endless: bool = False, **limits: Any) -> Service:
    """A model in use; `endless`: its answers end at their limit of tokens, or not at all."""
    inputs: Any = inputs_of(load_generator(folder))
    if endless:
        inputs.never_written = [*inputs.never_written, *inputs.end_token_ids]
    return Service(inputs, ["tiny"], Limits(**limits), Metrics())


@contextmanager
def serving(service: Service, key: str | None = None, hosts: Any = None) -> Iterator[Served]:
    """A server in a thread of this process, on a port of its own."""
    with _bind("127.0.0.1", 0) as opened:
        config = uvicorn.Config(build_app(service, key=key, hosts=hosts), log_level="warning", access_log=False)
        server = _Server(config, "")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        served = Served(service, f"http://127.0.0.1:{opened.getsockname()[1]}", server)
        try:
            yield served
        finally:
            served.http.close()
            served.openai.close()
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def chat(chat_model: Path) -> Iterator[Served]:
    with serving(make_service(chat_model)) as served:
        yield served


@pytest.fixture(scope="module")
def text(pretrained_model: Path) -> Iterator[Served]:
    with serving(make_service(pretrained_model)) as served:
        yield served
