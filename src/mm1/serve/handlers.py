"""What `/v1/chat/completions` and `/v1/completions` do: the library's handlers, with our prompts and our engine.

The forms of answers and of chunks are the library's. What it does otherwise, and why ours differ:

- it computes prompts and decodes pictures while all other requests wait;
- it takes addresses of pictures as they are, also those of files on this machine;
- it writes answers one after another, and keeps stop strings in them;
- it passes over settings that it doesn't have.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import JSONResponse, StreamingResponse
from openai.types import Completion, CompletionChoice
from openai.types.chat import ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler

from mm1.serve.bodies import ChatBody, CompletionBody, Sampling, read_body
from mm1.serve.engine import Answer
from mm1.serve.problems import Problem, too_slow
from mm1.serve.prompts import continuation, conversation
from mm1.serve.service import OneModel, OneState, Service

COMPLETION_TOKENS = 16
"""Tokens of a completion that doesn't say how many, as OpenAI has it."""

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies pass chunks on as they come


class _Answers:
    """What both handlers share: an answer as one body, or as a stream of events (SSE)."""

    service: Service

    def _whole(self, id: str, model: str, answer: Answer) -> dict[str, Any]:
        raise NotImplementedError

    def _chunk(self, id: str, model: str, piece: str | None, finish: str | None, first: bool) -> str:
        raise NotImplementedError

    def _counts(self, id: str, model: str, usage: CompletionUsage) -> str:
        raise NotImplementedError

    async def _respond(self, id: str, model: str, body: Sampling, answer: Answer) -> JSONResponse | StreamingResponse:
        """Return the response to a request that is in the queue.

        Its status is sent with the first piece of text, so that whatever goes wrong before has a status of its own.
        """
        piece = await self._piece(answer)
        if body.stream:
            events = self._events(id, model, body, answer, piece)
            return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)
        while piece is not None:
            piece = await self._piece(answer)
        return JSONResponse(self._whole(id, model, answer))

    async def _events(
        self, id: str, model: str, body: Sampling, answer: Answer, piece: str | None
    ) -> AsyncIterator[str]:
        first = True
        try:
            while piece is not None:
                yield self._chunk(id, model, piece, None, first)
                first = False
                piece = await self._piece(answer)
            yield self._chunk(id, model, None, answer.written.finish, first)
            if body.counts_usage:
                yield self._counts(id, model, usage(answer))
        except Problem as problem:
            answer.call.failed = True
            yield f"data: {json.dumps(problem.body())}\n\n"
        finally:
            if not answer.written.finish:
                answer.call.given_up.set()
        yield "data: [DONE]\n\n"

    async def _piece(self, answer: Answer) -> str | None:
        try:
            return await answer.piece()
        except TimeoutError:
            answer.call.given_up.set()
            raise too_slow(self.service.limits.seconds) from None


class ChatHandler(_Answers, ChatCompletionHandler):
    """Conversations."""

    def __init__(self, service: Service) -> None:
        super().__init__(OneModel(service), OneState(service))
        self.service = service

    async def handle_request(self, body: dict[str, Any], request_id: str) -> JSONResponse | StreamingResponse:
        """Answer the last message of a conversation."""
        read = read_body(ChatBody, body)
        model = self.service.name(read.model)
        if not self.service.inputs.takes_turns:
            raise Problem(
                400,
                f"'{model}' is a pre-trained model without a chat template: fine-tune it with mm1 sft, or send a "
                "few-shot prompt to /v1/completions",
                code="no_chat_template",
            )
        answer = await self.service.begin(
            lambda pictures: conversation(read, pictures), read, self.service.limits.max_tokens
        )
        return await self._respond(request_id, model, read, answer)

    def _whole(self, id: str, model: str, answer: Answer) -> dict[str, Any]:
        text, finish = answer.written.text, str(answer.written.finish)
        return self._build_completion(id, text, model, finish, usage(answer))

    def _chunk(self, id: str, model: str, piece: str | None, finish: str | None, first: bool) -> str:
        role = "assistant" if first else None
        return self._build_chunk_sse(id, piece, model, role, finish)

    def _counts(self, id: str, model: str, usage: CompletionUsage) -> str:
        chunk = ChatCompletionChunk(
            id=id, object="chat.completion.chunk", created=int(time.time()), model=model, choices=[], usage=usage
        )
        return self.chunk_to_sse(chunk)


class TextHandler(_Answers, CompletionHandler):
    """Texts that are continued."""

    def __init__(self, service: Service) -> None:
        super().__init__(OneModel(service), OneState(service))
        self.service = service

    async def handle_request(self, body: dict[str, Any], request_id: str) -> JSONResponse | StreamingResponse:
        """Continue a prompt."""
        read = read_body(CompletionBody, body)
        model = self.service.name(read.model)
        most = min(COMPLETION_TOKENS, self.service.limits.max_tokens)
        answer = await self.service.begin(lambda pictures: continuation(read, pictures), read, most)
        return await self._respond(request_id, model, read, answer)

    def _whole(self, id: str, model: str, answer: Answer) -> dict[str, Any]:
        finish = answer.written.finish or "stop"
        choice = CompletionChoice(text=answer.written.text, index=0, finish_reason=finish)
        return Completion(
            id=id,
            object="text_completion",
            created=int(time.time()),
            model=model,
            choices=[choice],
            usage=usage(answer),
        ).model_dump(exclude_none=True)

    def _chunk(self, id: str, model: str, piece: str | None, finish: str | None, first: bool) -> str:
        return self._build_chunk_sse(id, model, piece or "", finish)

    def _counts(self, id: str, model: str, usage: CompletionUsage) -> str:
        chunk = Completion(
            id=id, object="text_completion", created=int(time.time()), model=model, choices=[], usage=usage
        )
        return self.chunk_to_sse(chunk)


def usage(answer: Answer) -> CompletionUsage:
    """Return the tokens of prompt and answer; the token that ends an answer counts."""
    prompt, written = answer.prompt.length, len(answer.written.ids)
    return CompletionUsage(prompt_tokens=prompt, completion_tokens=written, total_tokens=prompt + written)
