"""One model being served: a request's document becomes an answer under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.utils import GenerationState

from mm1.document import Document
from mm1.serve.bodies import ChatBody, Sampling
from mm1.serve.call import CALL
from mm1.serve.engine import Answer, Engine, Settings
from mm1.serve.inputs import Inputs, too_long
from mm1.serve.limits import Limits
from mm1.serve.metrics import Metrics
from mm1.serve.pictures import PictureReader
from mm1.serve.problems import Problem
from mm1.serve.written import Written

_READERS = 2
"""Threads that decode pictures; memory for so many decoded pictures is in use at most."""


class Service:
    """The model, its queue and its names.

    Args:
        inputs: The model and what makes its inputs.
        names: What requests may call it; the first is what it is called where a request doesn't say.
        limits: See `Limits`.
        metrics: Counts what is done.
    """

    def __init__(self, inputs: Inputs, names: Sequence[str], limits: Limits, metrics: Metrics) -> None:
        self.inputs = inputs
        self.names = tuple(names)
        self.limits = limits
        self.metrics = metrics
        self.engine = Engine(inputs, limits.batch_size, metrics)
        self._readers = ThreadPoolExecutor(_READERS, "mm1-pictures")
        self._since = int(time.time())

    def name(self, asked: str | None) -> str:
        """Return what the model is called in the answer to a request that asks for a model.

        Raises:
            Problem: If it is another model.
        """
        if asked is None or asked in self.names:
            return asked or self.names[0]
        known = " or ".join(f"'{name}'" for name in self.names)
        raise Problem(
            404, f"model: '{asked[:200]}' is not served here: ask for {known}", code="model_not_found", param="model"
        )

    def models(self) -> list[dict[str, Any]]:
        """Return the names as OpenAI's clients list models."""
        return [{"id": name, "object": "model", "created": self._since, "owned_by": "mm1"} for name in self.names]

    async def begin(self, read: Callable[[PictureReader], Document], body: Sampling, most: int) -> Answer:
        """Prepare a request's document and put it into the queue.

        Args:
            read: Returns the document; it runs in a thread, since it reads pictures.
            body: How the answer is to be written.
            most: Tokens of the longest answer, if the request doesn't say.

        Raises:
            Problem: If the document doesn't suit the model, or too many tokens are asked for.
        """
        call, limits = CALL.get(), self.limits
        asked = body.most_tokens
        if asked is not None and asked > limits.max_tokens:
            raise Problem(
                400,
                f"max_tokens: an answer has at most {limits.max_tokens:,} tokens here: ask for fewer",
                code="max_tokens_too_large",
                param="max_tokens",
            )
        with self.engine.expecting():
            prompt = await asyncio.get_running_loop().run_in_executor(
                self._readers, lambda: self.inputs.prepare(read(PictureReader(limits, call)))
            )
            room = self.inputs.max_context - prompt.length
            if asked is not None and asked > room:
                raise too_long(prompt.length + asked, self.inputs.max_context)
            written = Written(
                self.inputs.processor.tokenizer,
                frozenset(self.inputs.end_token_ids),
                body.stops,
                min(asked or most, room),
                strip=isinstance(body, ChatBody),
            )
            draws = Settings(body.temperature or 0.0, body.top_p or 1.0, body.seed) if body.temperature else Settings()
            answer = Answer(prompt, draws, written, call, streams=bool(body.stream))
            self.engine.submit(answer)
        self.metrics.prompt_tokens.inc(prompt.length)
        self.metrics.pictures.inc(prompt.pictures)
        return answer

    def close(self) -> None:
        """End the threads."""
        self.engine.stop()
        self._readers.shutdown(wait=False, cancel_futures=True)


class OneModel(ModelManager):
    """The library's manager of models, for the one that was loaded before the port opened."""

    def __init__(self, service: Service) -> None:
        # Not the library's: it would load a model by its name, and unload it after a while.
        self._service = service
        self.force_model = service.names[0]

    def get_gen_models(self, cache_dir: str | None = None) -> list[dict[str, Any]]:  # type: ignore[override]  # static there
        """Return what `/v1/models` lists: the one model, whatever the Hub's cache holds."""
        return self._service.models()

    def shutdown(self) -> None:
        """End the service's threads; the library calls it when the server ends."""
        self._service.close()


class OneState(GenerationState):
    """The library's state of generation, of which `/health` asks."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def is_cb_alive(self) -> bool:
        """Return whether answers are written."""
        return self._service.engine.is_alive
