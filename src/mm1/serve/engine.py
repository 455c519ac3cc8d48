"""Requests that arrive together are answered together.

    prompts --wait--> waiting --equal settings--> batch --generate--> tokens, row by row --> texts
                      (queue)                     (padded on the left)

One thread computes. A batch is a call of the library's `generate`; whatever comes in meanwhile is the next one. Each
row has its own stop strings and length, ends by itself, and is answered as soon as it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList

from mm1.serve.call import Call
from mm1.serve.inputs import Inputs, Prompt
from mm1.serve.metrics import Metrics
from mm1.serve.problems import Problem
from mm1.serve.written import Written

logger = logging.getLogger(__name__)

WINDOW = 0.02
"""Seconds that a batch waits at most for requests whose pictures are being decoded."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What requests of one batch share.

    Attributes:
        temperature: 0: the likeliest token.
        top_p: The probability of the tokens that are drawn from.
        seed: Of the draws. A request that names one is answered alone, so that its answer depends on it alone.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        return self.temperature > 0


@dataclass(eq=False)
class Answer:
    """An answer under way.

    Attributes:
        prompt: What is answered.
        settings: How.
        written: What is written so far; the engine's thread changes it.
        call: The request.
        streams: Whether pieces are wanted before the end.
    """

    prompt: Prompt
    settings: Settings
    written: Written
    call: Call
    streams: bool
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _events: asyncio.Queue[str | Problem | None] = field(default_factory=asyncio.Queue)

    async def piece(self) -> str | None:
        """Return the next piece of text, or None at the end.

        Raises:
            Problem: If the answer fails or isn't done in time.
            TimeoutError: If it isn't done in time.
        """
        async with asyncio.timeout(self.call.seconds_left):
            event = await self._events.get()
        if isinstance(event, Problem):
            raise event
        return event

    def put(self, *events: str | Problem | None) -> None:
        """Hand over pieces, the end (None) or a problem, from the engine's thread."""
        for event in events:
            try:
                self._loop.call_soon_threadsafe(self._events.put_nowait, event)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self.call.given_up.set()


class Engine:
    """The thread that writes answers.

    Args:
        inputs: The model and what makes its inputs.
        batch_size: The most answers at once.
        metrics: Counts batches and tokens.

    Attributes:
        computing: Held while a batch is answered, and by whatever else uses the model.
    """

    def __init__(self, inputs: Inputs, batch_size: int, metrics: Metrics) -> None:
        self._inputs = inputs
        self._batch_size = min(batch_size, inputs.most_rows or batch_size)
        self._metrics = metrics
        self._waiting: deque[Answer] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._expected = 0
        self.computing = threading.Lock()
        model, tokenizer = inputs.model, inputs.processor.tokenizer
        self._ends = frozenset(inputs.end_token_ids)
        pad = tokenizer.pad_token_id
        # Not what was published with the model: it may sample, penalise repetition or end elsewhere.
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._ends),
            pad_token_id=min(self._ends) if pad is None else pad,
            suppress_tokens=inputs.never_written or None,
        )
        self._thread = threading.Thread(target=self._run, name="mm1-engine", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive() and not self._stopped

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Let the next batch wait a little for a request that is being prepared."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify()

    def submit(self, answer: Answer) -> None:
        """Put a request into the queue."""
        with self._changed:
            if self._stopped:
                raise shutting_down()
            self._waiting.append(answer)
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify()

    def stop(self, seconds: float = 10.0) -> None:
        """End the thread; answers under way get a problem."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while batch := self._next():
            try:
                with self.computing:
                    self._write(batch)
            except Exception as error:  # whatever a model, a device or a library raises: the server goes on
                logger.exception("a batch of %d failed", len(batch))
                if isinstance(error, torch.OutOfMemoryError):
                    message = "the batch does not fit into memory: ask again, or start the server with --batch-size"
                    problem = Problem(503, message, code="out_of_memory")
                else:
                    problem = Problem(500, "the model failed on this request: the server's log says why")
                for answer in batch:
                    if not answer.written.finish:
                        answer.put(problem)

    def _next(self) -> list[Answer]:
        """Wait for requests and return the next batch, the oldest request first; empty: the server ends."""
        with self._changed:
            while not self._here() and not self._stopped:
                self._changed.wait()
            until = time.monotonic() + WINDOW
            while self._expected and len(self._waiting) < self._batch_size and time.monotonic() < until:
                self._changed.wait(until - time.monotonic())
            if self._stopped:
                for answer in self._waiting:
                    answer.put(shutting_down())
                return []
            first = self._waiting[0].settings
            alone = first.samples and first.seed is not None
            batch = [answer for answer in self._waiting if answer.settings == first]
            batch = batch[: 1 if alone else self._batch_size]
            self._waiting = deque(answer for answer in self._waiting if answer not in batch)
            self._metrics.waiting.set(len(self._waiting))
        return batch

    def _here(self) -> bool:
        """Return whether anybody waits; whoever left takes no place in a batch."""
        self._waiting = deque(answer for answer in self._waiting if not answer.call.given_up.is_set())
        self._metrics.waiting.set(len(self._waiting))
        return bool(self._waiting)

    @torch.inference_mode()
    def _write(self, batch: Sequence[Answer]) -> None:
        """Answer a batch."""
        rows = [answer for answer in batch if not answer.call.given_up.is_set()]
        if not rows:
            return
        self._metrics.batch.observe(len(rows))
        settings = rows[0].settings
        if settings.samples and settings.seed is not None:
            torch.manual_seed(settings.seed)
        draws: dict[str, Any] = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
        config = GenerationConfig(
            max_new_tokens=max(answer.written.most for answer in rows),
            do_sample=settings.samples,
            **draws if settings.samples else {},
        )
        done = [False] * len(rows)

        def ended(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            """Hand each row its new token, and return which rows have ended."""
            for row, token in enumerate(ids[:, -1].tolist()):
                if not done[row]:
                    done[row] = self._took(rows[row], token)
            return torch.tensor(done, device=ids.device)

        self._inputs.model.generate(
            **self._inputs.batch([answer.prompt for answer in rows]),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([ended]),
        )

    def _took(self, answer: Answer, token: int) -> bool:
        """Give an answer its next token, and return whether it has ended."""
        if self._stopped:
            answer.put(shutting_down())
        if self._stopped or answer.call.given_up.is_set():
            return True
        if not answer.written.ids:
            self._metrics.first.observe(time.monotonic() - answer.call.started)
        self._metrics.answer_tokens.inc()
        piece = answer.written.add(token)
        if piece and answer.streams:
            answer.put(piece)
        if answer.written.finish:
            answer.put(None)
        return answer.written.finish is not None


def shutting_down() -> Problem:
    """Return the problem of a request that comes too late."""
    return Problem(503, "the server is shutting down: ask again later", code="shutting_down")
