"""Answers of the server: the words of `mm1 caption`, streamed or not, alone or in a batch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mm1.document import Document, Image, Part, Text
from mm1.evaluate.caption import MAX_NEW_TOKENS, STOP, caption_prompt
from mm1.evaluate.models.loading import load_generator
from mm1.serve.bodies import ChatBody, read_body
from mm1.serve.call import Call
from mm1.serve.inputs import inputs_of
from mm1.serve.limits import Limits
from mm1.serve.metrics import Metrics
from mm1.serve.pictures import PictureReader
from mm1.serve.prompts import conversation
from mm1.serve.service import Service
from tests.serve.conftest import Served, data_url, png, serving, shown

AS_CAPTION: Any = {"max_tokens": MAX_NEW_TOKENS, "stop": list(STOP)}


def streamed(served: Served, messages: Any, **settings: Any) -> tuple[str, Any, Any]:
    """Return the words of a stream, why it ended and its counts."""
    words, finish, usage, roles = "", None, None, []
    options = {"include_usage": True}
    stream = served.openai.chat.completions.create(
        model="tiny", messages=messages, stream=True, stream_options=options, **settings
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            words += choice.delta.content or ""
            finish = choice.finish_reason or finish
            roles.append(choice.delta.role)
    assert roles[0] == "assistant"
    assert set(roles[1:]) <= {None}
    return words, finish, usage


def caption(generator: Any, colour: str, question: str | None) -> str:
    """Return the words of `mm1 caption`."""
    prompt = caption_prompt(generator, Image(png(colour)), "picture", question)
    (answer,) = generator.generate([prompt], max_new_tokens=MAX_NEW_TOKENS, stop=STOP)
    return str(answer)


@pytest.mark.parametrize("question", ["what is it?", "is it red? Say yes or no.", "naïve café 🙂"])
def test_chat_answers_as_caption_does(chat: Served, chat_model: Path, question: str) -> None:
    generator = load_generator(chat_model)
    for colour in ("red", "green"):
        expected = caption(generator, colour, question)
        messages = shown(png(colour), question)
        whole = chat.openai.chat.completions.create(model="tiny", messages=messages, **AS_CAPTION)
        assert whole.choices[0].message.content == expected
        words, finish, usage = streamed(chat, messages, **AS_CAPTION)
        assert words == expected
        assert (finish, usage) == (whole.choices[0].finish_reason, whole.usage)


def test_completions_answer_as_caption_does(text: Served, pretrained_model: Path) -> None:
    generator = load_generator(pretrained_model)
    for question in (None, "what is it?"):
        prompt = "<image>" if question is None else f"<image> Question: {question} Short answer:"
        images = {"images": [data_url(png("red"))]}
        given: Any = {"model": "tiny", "prompt": prompt, "extra_body": images, **AS_CAPTION}
        whole = text.openai.completions.create(**given)
        assert whole.choices[0].text.strip() == caption(generator, "red", question)
        pieces = list(text.openai.completions.create(**given, stream=True))
        assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
        assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_prompt_is_the_beginning_of_a_document_in_training(chat: Served) -> None:
    red, blue = png("red"), png("blue")
    messages = [
        {"role": "system", "content": "Be short."},
        *shown(red, "what is it?"),
        {"role": "assistant", "content": "a red square"},
        *shown("and", blue, "this?"),
    ]
    body = read_body(ChatBody, {"messages": messages})
    document = conversation(body, PictureReader(Limits(), Call()))
    parts: list[Part] = [
        Text("Be short.", target=False),
        Image(red),
        Text("what is it?", target=False),
        Text("a red square"),
        Text("and", target=False),
        Image(blue),
        Text("this?", target=False),
        Text("a blue one"),
    ]
    roles = ["system", "user", "user", "assistant", "user", "user", "user", "assistant"]
    trained = chat.service.inputs.processor.encode(Document("all", "chat", tuple(parts), {"turns": roles}))
    prompt = chat.service.inputs.prepare(document)
    assert prompt.tensors["input_ids"].tolist() == trained.input_ids[: prompt.length].tolist()
    assert prompt.pictures == 2
    answer = chat.chat(messages, max_tokens=2).json()
    assert answer["usage"]["prompt_tokens"] == prompt.length


def test_requests_that_arrive_together_are_answered_together_with_equal_words(chat: Served) -> None:
    requests = [
        {"messages": shown(*pictures, question), "max_tokens": most, "stop": stop}
        for pictures, question, most, stop in [
            ((png("red"),), "what is it?", 40, None),
            ((png("blue"), png("red")), "which of these two is red, the first or the second?", 25, None),
            ((), "no picture here", 30, None),
            ((png("green"),), "hm", 12, ["a", "e"]),
            ((png("black", (40, 10)),), "what is it?", 40, "S"),
            ((png("white"),) * 4, "four?", 7, None),
        ]
    ]
    alone = [chat.http.post("/v1/chat/completions", json=body).json() for body in requests]
    batches = chat.service.metrics.batch
    before = batches._sum.get(), sum(bucket.get() for bucket in batches._buckets)
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(lambda body: chat.http.post("/v1/chat/completions", json=body).json(), requests))
    for one, other in zip(alone, together, strict=True):
        assert one["choices"] == other["choices"]
        assert one["usage"] == other["usage"]
    rows, count = batches._sum.get() - before[0], sum(bucket.get() for bucket in batches._buckets) - before[1]
    assert rows == len(requests)
    assert count <= 3


def test_a_stop_string_never_shows_in_a_stream(chat: Served) -> None:
    messages = shown(png("red"), "what is it?")
    words, _, usage = streamed(chat, messages, max_tokens=60)
    for length in (1, 2, 3, 5):  # stop strings that lie within a token, and over several
        for start in range(3, 30, 4):
            mark = words[start : start + length]
            expected = words[: words.index(mark)].strip()
            assert streamed(chat, messages, max_tokens=60, stop=mark)[:2] == (expected, "stop")
    assert usage.completion_tokens == 60
    ended = chat.chat(messages, max_tokens=60, stop=words[20:22]).json()
    assert ended["usage"]["completion_tokens"] < 60  # generation ended there, not only the text


def test_the_reason_for_an_end_and_the_counts(chat: Served, chat_model: Path) -> None:
    messages = shown(png("red"), "what is it?")
    long = chat.chat(messages, max_tokens=20).json()
    assert long["choices"][0]["finish_reason"] == "length"
    assert long["usage"]["completion_tokens"] == 20
    assert long["usage"]["total_tokens"] == long["usage"]["prompt_tokens"] + 20
    assert chat.chat(messages, max_completion_tokens=3).json()["usage"]["completion_tokens"] == 3
    inputs: Any = inputs_of(load_generator(chat_model))
    document = conversation(read_body(ChatBody, {"messages": messages}), PictureReader(Limits(), Call()))
    batch = inputs.batch([inputs.prepare(document)])
    ids = inputs.model.generate(**batch, do_sample=False, max_new_tokens=6)[0, batch["input_ids"].shape[1] :].tolist()
    inputs.end_token_ids = [ids[4]]  # the answer ends with its fifth token, also where five are the most
    service = Service(inputs, ["tiny"], Limits(), Metrics())
    with serving(service) as served:
        for most in (5, 6):
            ended = served.chat(messages, max_tokens=most).json()
            assert ended["choices"][0]["finish_reason"] == "stop"
            assert ended["usage"]["completion_tokens"] == 5


def test_a_seed_gives_the_same_draws_whoever_else_asks(chat: Served) -> None:
    def ask(seed: int | None) -> str:
        answer = chat.chat(shown(png("red"), "what is it?"), temperature=1.0, seed=seed, max_tokens=20)
        return str(answer.json()["choices"][0]["message"]["content"])

    alone = ask(7)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, [7, None, 7, 8, None, 7]))[::2] != [alone]
        several = list(pool.map(ask, [7, 8, 7, None]))
    assert several[0] == several[2] == alone
    assert several[1] != alone
    assert ask(None) != ask(None)


def test_temperature_zero_and_top_p_are_taken(chat: Served) -> None:
    messages = shown(png("red"), "what is it?")
    greedy = chat.chat(messages, max_tokens=20).json()["choices"]
    assert chat.chat(messages, max_tokens=20, temperature=0, seed=3, top_p=0.5).json()["choices"] == greedy
    # The smallest nucleus is the likeliest token alone.
    assert chat.chat(messages, max_tokens=20, temperature=1.0, top_p=1e-9).json()["choices"] == greedy


def test_low_detail_shows_a_picture_whole(chat: Served) -> None:
    url = {"url": data_url(png("red")), "detail": "low"}
    body = read_body(ChatBody, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]})
    assert conversation(body, PictureReader(Limits(), Call())).images[0].whole


def test_models_are_listed_without_the_hub(chat: Served) -> None:
    assert [model.id for model in chat.openai.models.list()] == ["tiny"]
    assert chat.openai.models.retrieve("tiny").id == "tiny"
    assert chat.chat(shown("a"), model="tiny", max_tokens=1).json()["model"] == "tiny"


def test_a_streams_events_are_openais(text: Served) -> None:
    with text.http.stream("POST", "/v1/completions", json={"prompt": "a", "stream": True, "max_tokens": 3}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


def test_the_event_loop_is_free_while_pictures_are_decoded(chat: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on, decoded = threading.Event(), threading.Event()
    prepare = chat.service.inputs.prepare

    def slow(document: Any) -> Any:
        going_on.set()
        assert decoded.wait(20)
        return prepare(document)

    monkeypatch.setattr(chat.service.inputs, "prepare", slow)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: chat.chat(shown(png("red")), max_tokens=1))
        assert going_on.wait(20)
        assert chat.http.get("/healthz", timeout=5).status_code == 200
        decoded.set()
        assert asked.result().status_code == 200
