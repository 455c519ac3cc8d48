"""What the page asks for: tiles, scores and attention, behind the same guard as all else."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from mm1.cli import app as cli
from mm1.document import Document, Image, Text
from mm1.evaluate.models.loading import load_generator
from mm1.processing.answers import following
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor
from mm1.processing.tiles import TilingRule
from mm1.serve.inputs import LibraryInputs
from mm1.serve.page.mount import _FILES, mount_page
from mm1.serve.service import Service
from tests.serve import conftest
from tests.serve.conftest import Served, data_url, make_service, png, save_model, serving, shown

PROMPT: Any = {"prompt": "<image> a red\n<image> a", "images": [data_url(png("red")), data_url(png("blue"))]}
ANSWER = "a green square in picture 3"


@contextmanager
def paged(service: Service, **settings: Any) -> Iterator[Served]:
    """A server with the page."""

    def build(service: Service, **given: Any) -> FastAPI:
        app = plain(service, **given)
        mount_page(app, service)
        return app

    with pytest.MonkeyPatch.context() as patch:
        plain = conftest.build_app
        patch.setattr(conftest, "build_app", build)
        with serving(service, **settings) as served:
            yield served


@pytest.fixture(scope="module")
def page(pretrained_model: Path) -> Iterator[Served]:
    with paged(make_service(pretrained_model, max_tokens=100, pixels=2_000_000)) as served:
        yield served


@pytest.fixture(scope="module")
def talk(chat_model: Path) -> Iterator[Served]:
    with paged(make_service(chat_model)) as served:
        yield served


@pytest.fixture(scope="module")
def cut_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("models") / "cut", default_chat_template())
    processor = MM1Processor.from_pretrained(folder)
    processor.set_rule(TilingRule(grid="2x2", fit="pad", min_side=17))
    processor.save_pretrained(folder)
    return folder


def test_the_page_has_nothing_from_elsewhere_and_nothing_in_line(page: Served) -> None:
    for path in _FILES:
        answer = page.http.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"https?://(?!www\.w3\.org/)", answer.text), path
        assert "innerHTML" not in answer.text
    html = page.http.get("/").text
    named = re.findall(r'(?:src|href)="(/[^"]*)"', html)
    assert named
    assert set(named) <= set(_FILES)
    assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=", html)


def test_scores_are_those_of_evaluation(page: Served, pretrained_model: Path) -> None:
    alternatives = [" red", " blue square", " naïve"]
    found = page.http.post("/mm1/scores", json={**PROMPT, "alternatives": alternatives}).json()
    parts = (Image(png("red")), Text(" a red\n"), Image(png("blue")), Text(" a"))
    document = Document("x", "interleaved", parts)
    expected = load_generator(pretrained_model).log_likelihoods([document] * 3, alternatives)
    assert [row["log_likelihood"] for row in found["scores"]] == pytest.approx([e.total for e in expected], abs=1e-5)
    assert [row["greedy"] for row in found["scores"]] == [e.greedy for e in expected]
    assert found["scores"][0]["per_character"] == pytest.approx(expected[0].total / 3)
    assert found["likeliest"] == max(range(3), key=lambda i: expected[i].total)


def test_alternatives_in_a_conversation_have_the_tokens_of_training(talk: Served, chat_model: Path) -> None:
    alternatives = ["a red square", "naïve"]
    given = {"messages": shown(png("red"), "what is it?"), "alternatives": alternatives}
    rows = talk.http.post("/mm1/scores", json=given).json()["scores"]
    generator = load_generator(chat_model)
    parts = (Image(png("red")), Text("what is it?", target=False))
    prompt = Document("x", "chat", parts, {"turns": ["user", "user"]})
    before = generator.processor.encode(prompt, close=False).input_ids
    for row, words in zip(rows, alternatives, strict=True):
        answered = Document("x", "chat", (*parts, Text(words)), {"turns": ["user", "user", "assistant"]})
        trained = generator.processor.encode(answered).input_ids
        assert trained[: len(before)].tolist() == before.tolist()
        spaced = following(generator.processor, prompt, words)
        own = generator.processor.tokenizer(spaced, add_special_tokens=False)["input_ids"]
        assert trained[len(before) : -1].tolist() == own  # the last ends the answer
        (expected,) = generator.log_likelihoods([prompt], [spaced])
        assert row["log_likelihood"] == pytest.approx(expected.total, abs=1e-5)
        assert (row["text"], row["tokens"]) == (words, len(own))


def test_tiles_and_tokens_are_those_of_the_model(cut_model: Path) -> None:
    with paged(make_service(cut_model)) as served:
        messages = shown(png("red", (40, 20)), "what is it?", png("blue", (8, 8)))
        found = served.http.post("/mm1/tiles", json={"messages": messages}).json()
        large, small = found["pictures"]
        assert [image["name"] for image in large["images"]][:2] == ["whole", "row 1, column 1"]
        assert [(image["row"], image["column"]) for image in large["images"]][1:] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert (large["rows"], large["columns"], large["tokens"], small["tokens"]) == (2, 2, 20, 4)
        assert all(image["source"].startswith("data:image/png;base64,") for image in large["images"])
        counted = sum(token.get("count", 1) for token in found["tokens"])
        answer = served.chat(messages, max_tokens=1).json()
        assert found["count"] == counted == answer["usage"]["prompt_tokens"]
        assert [token["picture"] for token in found["tokens"] if "picture" in token] == [0, 1]
        given = {"messages": messages, "answer": ANSWER}
        weights = served.http.post("/mm1/attention", json=given).json()
        assert [len(picture["images"]) for picture in weights["pictures"]] == [5, 1]


def test_attention_is_the_mean_of_the_decoders_weights(page: Served, pretrained_model: Path) -> None:
    answer = ANSWER * 6  # longer than what is computed at once
    before = page.openai.completions.create(model="tiny", prompt="a", max_tokens=5).choices[0].text
    found = page.http.post("/mm1/attention", json={**PROMPT, "answer": answer}).json()
    model = page.service.inputs.model
    own = model.config.get_text_config()._attn_implementation
    assert own != "eager"  # as it was before
    generator = load_generator(pretrained_model)
    processor, reference = generator.processor, generator.model
    reference.set_attn_implementation({"text_config": "eager"})
    parts = (Image(png("red")), Text(" a red\n"), Image(png("blue")), Text(" a"))
    encoded = processor.encode(Document("x", "interleaved", parts), close=False)
    answered = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*encoded.input_ids.tolist(), *answered]])
    pixels = processor.normalize(torch.from_numpy(processor.pixel_values(encoded.images)))
    with torch.inference_mode():
        output = reference(input_ids=ids, pixel_values=pixels, output_attentions=True)
    rows = slice(len(encoded.input_ids) - 1, ids.shape[1] - 1)
    mean = torch.stack([layer[0, :, rows].mean(dim=(0, 1)) for layer in output.attentions]).mean(dim=0)
    assert len(answered) == found["tokens"] > 32
    for picture, start in zip(found["pictures"], encoded.image_starts, strict=True):
        assert picture["images"] == [pytest.approx(mean[start : start + 4].tolist(), abs=1e-6)]
        assert picture["share"] == pytest.approx(float(mean[start : start + 4].sum()), abs=1e-6)
    assert math.isclose(found["text_share"] + sum(one["share"] for one in found["pictures"]), 1, abs_tol=1e-5)
    assert found["grid"] == 2
    assert page.openai.completions.create(model="tiny", prompt="a", max_tokens=5).choices[0].text == before


def test_attention_of_a_prompt_that_ends_with_a_picture(page: Served) -> None:
    given = {"prompt": "<image>", "images": [data_url(png("red"))], "answer": " a"}
    found = page.http.post("/mm1/attention", json=given).json()
    assert 0 < found["pictures"][0]["share"] < 1


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("scores", {**PROMPT}, 400, "alternatives"),
    ("scores", {**PROMPT, "alternatives": []}, 400, "alternatives"),
    ("scores", {**PROMPT, "alternatives": [""]}, 400, "alternatives[0]"),
    ("scores", {**PROMPT, "alternatives": ["a"] * 65}, 400, "alternatives"),
    ("scores", {**PROMPT, "alternatives": ["a"], "temperature": 1}, 400, "temperature"),
    ("scores", {**PROMPT, "alternatives": ["a" * 100_000]}, 400, "tokens"),
    ("scores", {**PROMPT, "alternatives": ["a"], "answer": "b"}, 400, "answer"),
    ("attention", {**PROMPT, "answer": "a b " * 50_000}, 400, "tokens"),
    ("attention", {**PROMPT, "answer": 3}, 400, "answer"),
    ("tiles", {"messages": shown("a")}, 400, "without a chat template"),
    ("tiles", {"prompt": "<image>", "images": ["data:image/png;base64,AAAA"]}, 400, "images[0]"),
    ("tiles", {"prompt": "<image>", "images": ["http://127.0.0.1/x.png"]}, 400, "images[0]"),
    ("tiles", {"prompt": "<image>", "images": [data_url(png("red", (2000, 1001)))]}, 400, "2,000,000 pixels"),
    ("tiles", {"prompt": "a " * 100_000}, 400, "prompt"),
    ("tiles", {"prompt": "a", "model": "another"}, 404, "another"),
]


@pytest.mark.parametrize(("what", "body", "status", "words"), REFUSED)
def test_refusals_are_sentences(page: Served, what: str, body: dict[str, Any], status: int, words: str) -> None:
    answer = page.http.post(f"/mm1/{what}", json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_the_page_needs_no_key_and_all_else_does(pretrained_model: Path) -> None:
    with paged(make_service(pretrained_model, body_bytes=3000), key="abc") as served:
        assert {served.http.get(path).status_code for path in _FILES} == {200}
        for path in ("/mm1/about", "/v1/models", "/page"):
            assert served.http.get(path).status_code == 401
        assert served.http.post("/mm1/tiles", json=PROMPT).status_code == 401
        key = {"Authorization": "Bearer abc"}
        assert served.http.get("/mm1/about", headers=key).json()["takes_turns"] is False
        large = {"prompt": "a" * 4000}
        assert served.http.post("/mm1/tiles", json=large, headers=key).status_code == 413


def test_looking_waits_for_the_batch_under_way(page: Served) -> None:
    given = {**PROMPT, "alternatives": ["a", "b"]}
    engine = page.service.engine
    answers: list[httpx.Response] = []
    with engine.computing:
        asking = threading.Thread(target=lambda: answers.append(page.http.post("/mm1/scores", json=given)))
        asking.start()
        asking.join(0.3)
        assert not answers
    asking.join(20)
    assert answers[0].status_code == 200


def test_a_look_that_comes_too_late_is_a_timeout(pretrained_model: Path) -> None:
    service = make_service(pretrained_model, seconds=0.3)
    with paged(service) as served, service.engine.computing:
        answer = served.http.post("/mm1/attention", json={**PROMPT, "answer": "a"})
        assert answer.status_code == 504


@pytest.mark.parametrize("option", ["--page", "--no-page"])
def test_the_command_shows_the_page_or_leaves_it_out(
    pretrained_model: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[FastAPI, str]] = []

    def run(app: FastAPI, opened: Any, seconds: float, greeting: str) -> int:
        ran.append((app, greeting))
        return 0

    monkeypatch.setattr("mm1.serve.server.run_app", run)
    result = CliRunner().invoke(cli, ["serve", str(pretrained_model), "--port", "0", option])
    assert result.exit_code == 0, result.output
    ((app, greeting),) = ran
    client = TestClient(app, base_url="http://127.0.0.1")
    if option == "--page":
        assert "shows its page at http://127.0.0.1:" in greeting
        assert client.get("/").headers["content-type"].startswith("text/html")
        assert client.get("/mm1/about").json()["model"] == str(pretrained_model)
    else:
        assert "page" not in greeting.replace(str(pretrained_model), "")
        assert client.get("/").status_code == client.get("/mm1/about").status_code == 404


def test_another_family_can_not_be_looked_into(pretrained_model: Path) -> None:
    service = make_service(pretrained_model)
    service.inputs = LibraryInputs.__new__(LibraryInputs)
    service.inputs.takes_turns = False
    with paged(service) as served:
        assert served.http.get("/mm1/about").json()["looks_inside"] is False
        answer = served.http.post("/mm1/tiles", json=PROMPT)
        assert answer.status_code == 400
        assert "another family" in answer.json()["error"]["message"]
