"""The page in headless Chromium, from a picture dropped to the answer: `make test-browser`.

The browser is playwright's own (`playwright install chromium`) or the system's Chromium or Chrome.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Error, Page, expect, sync_playwright

from tests.serve.conftest import Served, make_service, png, pretrained_model  # noqa: F401
from tests.serve.test_page import cut_model, paged  # noqa: F401

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

DROP = """([target, pictures]) => {
    const transfer = new DataTransfer();
    for (const { name, data } of pictures) {
        const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type: "image/png" }));
    }
    const place = document.querySelector(target);
    for (const type of ["dragenter", "dragover", "drop"])
        place.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def drop(page: Page, target: str, **pictures: bytes) -> None:
    files = [{"name": f"{name}.png", "data": base64.b64encode(data).decode()} for name, data in pictures.items()]
    page.evaluate(DROP, [target, files])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        try:
            started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error:
            pytest.skip("no browser: playwright install chromium")
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """A page that tells of scripts' errors, and of anything that the policy refuses."""
    context = browser.new_context()
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    said: list[str] = []
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("console", lambda message: said.append(message.text) if "Content Security" in message.text else None)
    yield opened
    context.close()
    assert not said


@pytest.fixture(scope="module")
def talk(cut_model: Path) -> Iterator[Served]:  # noqa: F811
    with paged(make_service(cut_model, max_tokens=40)) as served:
        yield served


@pytest.fixture(scope="module")
def text(pretrained_model: Path) -> Iterator[Served]:  # noqa: F811
    with paged(make_service(pretrained_model, max_tokens=40)) as served:
        yield served


def visit(page: Page, served: Served) -> None:
    page.goto(served.url)
    expect(page.locator("#model")).to_have_text("tiny")
    expect(page.locator("#question")).to_be_focused()


def asked(page: Page) -> list[Any]:
    """Record the bodies of questions."""
    bodies: list[Any] = []
    page.on("request", lambda one: bodies.append(one.post_data_json) if "/v1/c" in one.url else None)
    return bodies


def answered(page: Page, count: int) -> str:
    """Wait for an answer and return its text."""
    last = page.locator("#log .model").nth(count - 1)
    expect(last).to_have_attribute("aria-busy", "false", timeout=20_000)
    return last.locator(".text").inner_text()


def test_from_dropped_pictures_to_answers_by_keyboard(page: Page, talk: Served) -> None:
    bodies = asked(page)
    visit(page, talk)
    drop(page, "body", red=png("red", (40, 20)), blue=png("blue"))
    expect(page.locator("#pending img")).to_have_count(2)
    expect(page.locator("#drop")).to_be_hidden()
    page.keyboard.type("What is")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("in them?")
    page.keyboard.press("Enter")
    first = answered(page, 1)
    expect(page.locator("#pending img")).to_have_count(0)
    content = bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[2]["text"] == "What is\nin them?"
    whole = talk.chat(bodies[0]["messages"], max_tokens=40).json()["choices"][0]["message"]["content"]
    assert first == whole.strip()
    page.keyboard.type("And now?")
    page.keyboard.press("Enter")
    answered(page, 2)
    assert [message["role"] for message in bodies[1]["messages"]] == ["user", "assistant", "user"]
    assert bodies[1]["messages"][1]["content"] == first
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#log > li")).to_have_count(0)


def test_what_the_model_sees_and_where_it_looked(page: Page, talk: Served) -> None:
    visit(page, talk)
    drop(page, "body", red=png("red", (40, 20)))
    page.get_by_role("button", name="Show images and tokens").click()
    expect(page.locator("#seen .square")).to_have_count(5)
    expect(page.locator("#seen .token.picture")).to_have_text("picture 1: 20 tokens")
    assert "40x20 px becomes 5 images" in page.locator("#seen figcaption").inner_text()
    page.locator("#question").fill("what is it?")
    page.keyboard.press("Enter")
    words = answered(page, 1)
    page.get_by_role("button", name="where this answer looked").click()
    expect(page.locator("#attention canvas")).to_have_count(5)
    assert page.locator("#attention .quoted").inner_text() == words
    assert "null" not in page.locator("#attention").inner_text()
    label = page.locator("#attention canvas").first.get_attribute("aria-label")
    assert re.match(r"attention: strongest at row \d, column \d of 2, [\d.]+ %", label or "")
    painted = "(all) => all.map((c) => Math.max(...c.getContext('2d').getImageData(0, 0, 2, 2).data))"
    assert max(page.locator("#attention canvas").evaluate_all(painted)) == 255


def test_examples_and_scores_for_a_pretrained_model(page: Page, text: Served) -> None:
    bodies = asked(page)
    visit(page, text)
    expect(page.locator("#hint")).to_contain_text("pre-trained")
    page.locator("#shots summary").click()
    drop(page, "#shots", red=png("red"), green=png("green"), grey=png("grey"))
    answers = page.locator("#shot-list input")
    expect(answers).to_have_count(3)
    for number, answer in enumerate(("red", "green", "grey")):
        answers.nth(number).fill(answer)
    page.get_by_role("button", name="Move example 3 up").press("Enter")
    expect(page.get_by_role("button", name="Move example 2 up")).to_be_focused()
    page.get_by_role("button", name="Remove example 1").click()
    drop(page, "body", blue=png("blue"))
    page.locator("#alternatives").fill("red\nblue\n\nred")
    page.get_by_role("button", name="Score").click()
    rows = page.locator("#scores tbody tr")
    expect(rows).to_have_count(2)
    prompt = "<image> grey\n<image> green\n<image>"
    page.locator("#question").press("Enter")
    answered(page, 1)
    assert (bodies[0]["prompt"], bodies[0]["stop"], len(bodies[0]["images"])) == (prompt, "\n", 3)
    given = {"prompt": prompt, "images": bodies[0]["images"], "alternatives": [" red", " blue"]}
    scores = text.http.post("/mm1/scores", json=given).json()["scores"]
    shown = [row.locator("td").first.inner_text() for row in rows.all()]
    assert shown == [f"{score['log_likelihood']:.2f}" for score in scores]
    page.locator("#question").fill("what color?")
    page.keyboard.press("Enter")
    answered(page, 2)
    asks = " Question: what color? Short answer:"
    assert bodies[1]["prompt"] == f"<image>{asks} grey\n<image>{asks} green\n<image>{asks}"
    assert bodies[1]["images"][-1] == bodies[0]["images"][-1]


def test_escape_stops_and_what_was_asked_comes_back(page: Page, talk: Served) -> None:
    visit(page, talk)
    drop(page, "body", red=png("red"))
    page.locator("#question").fill("what is it?")
    with talk.service.engine.computing:  # so that no answer begins
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator("#log > li")).to_have_count(0)
    expect(page.locator("#question")).to_have_value("what is it?")
    expect(page.locator("#pending img")).to_have_count(1)


def test_markup_is_text_and_errors_are_sentences(page: Page, talk: Served) -> None:
    visit(page, talk)
    said = '<img src=x onerror="window.hurt=1"><b>bold</b>'
    chunk = json.dumps({"choices": [{"delta": {"content": said}}]})
    events = f"data: {chunk}\n\ndata: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=events))
    page.locator("#question").fill("<i>hello</i>")
    page.keyboard.press("Enter")
    assert answered(page, 1) == said
    assert page.locator("#log .user").inner_text() == "<i>hello</i>"
    assert page.evaluate("window.hurt") is None
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="New chat").click()
    drop(page, "body", broken=b"no picture")
    page.locator("#question").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("messages[0].content[0].image_url")
    expect(page.locator("#pending img")).to_have_count(1)
    page.get_by_role("button", name="Remove broken.png").click()
    page.get_by_role("button", name="Score").click()
    expect(page.locator("#scores")).to_contain_text("there is no answer to score")


def test_the_key_is_asked_for_once(page: Page, cut_model: Path) -> None:  # noqa: F811
    with paged(make_service(cut_model, max_tokens=3), key="abc") as served:
        page.goto(served.url)
        page.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-note")).to_contain_text("doesn't take this key")
        page.get_by_label("Key", exact=True).fill("abc")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_have_text("tiny")
        page.locator("#question").fill("what is it?")
        page.keyboard.press("Enter")
        answered(page, 1)
        page.reload()
        expect(page.locator("#model")).to_have_text("tiny")
        expect(page.locator("#key-dialog")).to_be_hidden()
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_a_request_that_is_too_large_is_a_sentence(page: Page, cut_model: Path) -> None:  # noqa: F811
    with paged(make_service(cut_model, body_bytes=100_000)) as served:
        visit(page, served)
        drop(page, "body", large=png("red") + bytes(2_000_000))
        expect(page.locator("#pending img")).to_have_count(1)
        page.locator("#question").press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("more than 100,000 bytes")


PASTE = """([picture, text]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(picture)], "image.png", { type: "image/png" }));
    if (text) transfer.setData("text/plain", text);
    const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
    document.querySelector("#question").dispatchEvent(event);
    return event.defaultPrevented;
}"""


def test_a_picture_is_pasted_and_cells_of_a_table_are_text(page: Page, talk: Served) -> None:
    visit(page, talk)
    picture = list(png("red"))
    assert page.evaluate(PASTE, [picture, "a\tb"]) is False
    assert page.evaluate(PASTE, [picture, ""]) is True
    expect(page.locator("#pending img")).to_have_count(1)


def test_pictures_are_chosen_as_files(page: Page, talk: Served, tmp_path: Path) -> None:
    visit(page, talk)
    (tmp_path / "red.png").write_bytes(png("red"))
    (tmp_path / "notes.txt").write_text("no picture")
    page.locator("#files").set_input_files([tmp_path / "red.png", tmp_path / "notes.txt"])
    expect(page.get_by_role("alert")).to_contain_text("notes.txt: not a picture")
    expect(page.locator("#pending img")).to_have_count(1)


def test_a_picture_may_be_dropped_before_the_server_has_answered(page: Page, talk: Served) -> None:
    held: list[Any] = []
    page.route("**/mm1/about", lambda route: held.append(route))
    page.goto(talk.url)
    drop(page, "body", red=png("red"))
    expect(page.locator("#pending img")).to_have_count(1)
    page.locator("#question").press("Enter")
    held[0].continue_()
    expect(page.locator("#send")).to_be_enabled()
    page.locator("#question").press("Enter")
    answered(page, 1)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page: Page, talk: Served, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    visit(page, talk)
    page.locator("#shots summary").click()
    page.locator("#settings summary").click()
    drop(page, "#shots", red=png("red"))
    page.locator("#shot-list input").fill("red")
    drop(page, "body", **{f"p{n}": png("blue", (400, 20)) for n in range(9)})
    page.locator("#question").fill("a" * 300)
    page.get_by_role("button", name="Show images and tokens").click()
    expect(page.locator("#seen figure")).to_have_count(10)
    page.locator("#alternatives").fill("b" * 100 + "\nred")
    page.get_by_role("button", name="Score").click()
    expect(page.locator("#scores tr")).to_have_count(3)
    page.locator("#question").press("Enter")
    answered(page, 1)
    page.get_by_role("button", name="where this answer looked").click()
    expect(page.locator("#attention figure")).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
