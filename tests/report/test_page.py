import copy
import json
import math
import re
import tempfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.errors import UserError
from mm1.report import write_report

from . import conftest

SCRIPT = "</textarea><script>alert(1)</script><img src=x onerror=alert(2)>\"'"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.pieces: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())


def page_of(run: Path) -> Page:
    return Page(write_report(run))


def assert_inert(page: Page) -> None:
    """Check that nothing on the page is run by the browser or asked of the network."""
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "base", "form", "a"}
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert value
            assert value.startswith(("data:image/png;base64,", "#"))
    assert "http://" not in page.html
    assert "https://" not in page.html
    assert "@import" not in page.html


def test_a_finished_run(write_run):
    run = write_run()
    path = write_report(run)
    assert path == run / "report.html"
    assert sorted(file.name for file in run.iterdir() if "report" in file.name) == ["report.html"]
    page = Page(path)
    assert_inert(page)
    assert (
        "A model of 3.08M parameters, trained for 6 min 45 s, reaches 83.1 % on easy-vqa (0 shots; floor 37.0 %), "
        "CIDEr 146.0 on scenes-caption (4 shots; floor 11.7) and 96.4 % on pages (8 shots; floor 24.0 %)." in page.text
    )
    for fact in ("tokens seen 3.02M", "images seen 64,500", "tokens/s 7,444", "packing fill 99.2 %"):
        assert fact in page.text
    assert "caption 45.0 % 45.0 % 2,700" in page.text
    assert "4 layers × 128, 64 px in patches of 8" in page.text
    assert "82.2 % 79.2–84.7 37.0 % yes 35.2 % 33.2–37.2 +45.2 1,000" in page.text
    assert "exact match 79.0 %" in page.text
    assert "Missing so far" not in page.text
    assert page.html.count('role="img" aria-label="loss"') == 4
    assert page.html.count('role="img" aria-label="score"') == 3
    assert "learning_rate" in page.text  # the recipe
    assert "mm1 pretrain demo.yaml --to runs/demo-again" in page.text
    assert str(run.parent) not in page.html
    assert "The paper has no scores of mm1-3b for easy-vqa, scenes-caption, pages." in page.text


def test_held_out_pictures_are_the_first_twelve_and_marked(write_run):
    page = page_of(write_run())
    captions = page.html.split("Held-out pictures")[1].split("<details>")[0]
    assert captions.count("<img") == 12
    assert captions.count('class="right"') == 11
    assert captions.count('class="wrong"') == 1
    assert "<em>hexagon</em>" in captions
    assert captions.count('class="reference"') == 1
    assert "a yellow square on the left" in captions


def test_the_prompt_is_of_the_task_that_shots_help_most(write_run):
    page = page_of(write_run())
    prompt = page.html.split('<div class="prompt">')[1].split("</div>")[0]
    assert prompt.count("<img") == 9
    assert "> BLUE\n<img" in prompt
    assert "<mark>red</mark>" in prompt
    assert "pages, 8 shots. The model’s answer is underlined; the reference is “red”." in page.text


def test_a_run_that_goes_on(write_run):
    lines = "".join(json.dumps(line) + "\n" for line in conftest.metrics(420))
    page = page_of(write_run(metrics=lines, scores=None, model=None))
    assert (
        "A model of 3.08M parameters is at step 420 of 1,500 (28 %), 1 min 53 s into its training, at loss" in page.text
    )
    assert "still training" in page.text
    assert "Missing so far: the trained model (model/config.json), the model's scores (scores/)." in page.text


def test_trained_but_not_scored(write_run):
    page = page_of(write_run(scores=None))
    assert "has finished training after 6 min 45 s at loss" in page.text
    assert "and is not scored yet." in page.text


@pytest.mark.parametrize("part", ["recipe", "environment", "plan", "metrics", "model", "scores"])
@pytest.mark.parametrize("content", [None, "", "{", "[1, 2]"])
def test_missing_or_broken_parts_are_named(write_run, part, content):
    if part == "scores":
        run = write_run(scores=None)
        if content is not None:
            (run / "scores" / "pages.0-shot.json").write_text(content)
    else:
        run = write_run(**{part: content})
    page = page_of(run)
    assert_inert(page)
    file = {
        "recipe": "recipe.yaml",
        "environment": "environment.json",
        "plan": "plan/plan.json",
        "metrics": "metrics.jsonl",
        "model": "model/config.json",
        "scores": "scores/",
    }[part]
    if content is None or part in ("metrics", "scores"):
        assert f"({file})" in page.text
    elif part != "recipe":
        assert f"{file} is not a JSON object" in page.text


def test_an_empty_directory(tmp_path):
    page = page_of(tmp_path)
    assert "The model is being prepared; no training step is logged yet." in page.text
    assert "the loss curves (metrics.jsonl)" in page.text


def test_no_directory(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such run directory: name a folder"):
        write_report(tmp_path / "nowhere")


def test_what_others_wrote_stays_text(write_run):
    files = conftest.scores()
    for file in files:
        file["task"] = file["task"] + SCRIPT.replace("/", "")
        file["metric"] = SCRIPT
        file["floors"][SCRIPT] = {"score": 0.1, "answer": SCRIPT}
        file["protocol"][SCRIPT] = [SCRIPT]
        file["also"][SCRIPT] = {"score": 0.2}
        file["example_prompt"] += [{"text": SCRIPT}, {"image": 'iVBORw0KGgo" onerror="alert(3)'}, {"image": SCRIPT}]
        for item in file["predictions"]:
            item |= {"id": SCRIPT, "prediction": SCRIPT, "answers": [SCRIPT, "x"], "prompt": "<image>" + SCRIPT}
    environment = {"commit": SCRIPT, "machine": SCRIPT, SCRIPT: SCRIPT, "parameters": {SCRIPT: 5}}
    plan = conftest.plan()
    plan["kinds"][SCRIPT] = plan["kinds"]["text"]
    plan["sources"][SCRIPT] = {"kind": SCRIPT}
    line = (
        json.dumps(
            {
                "step": 1,
                "loss": 2.0,
                f"loss/{SCRIPT}": 1.0,
                "loss/$x^2$": 2.0,
                f"score/{SCRIPT}": 0.5,
                f"router/{SCRIPT}": 1,
            }
        )
        + "\n"
    )
    recipe = f"name: {json.dumps(SCRIPT)}\n"
    page = page_of(write_run(scores=files, environment=environment, plan=plan, metrics=line, recipe=recipe))
    assert_inert(page)
    assert page.text.count("<script>alert(1)</script>") > 20


def test_speed_gradients_routers_and_scores_on_the_way(write_run):
    lines = conftest.metrics(400)
    for number, line in enumerate(lines):
        line |= {"mfu": 0.31, "images_per_second": 70.0, "grad_norm/vision": 0.2, "grad_norm/connector": 0.1}
        line |= {"router/largest_load": 0.4, "router/load/0": 0.4, "bad_steps": 2, "loss_spikes": 1, "bad_images": 0}
        if number % 10 == 9:
            line |= {"score/pages/4-shot": 0.01 * number}
    page = page_of(write_run(metrics="".join(json.dumps(line) + "\n" for line in lines), scores=None, model=None))
    assert_inert(page)
    captions = re.findall(r"<figcaption>([^<]*)</figcaption>", page.html)
    assert captions == [
        *["pages, 4-shot", "all kinds", "caption", "interleaved", "text"],
        *["tokens/s", "images/s", "MFU, %", "data wait, %", "learning rate", "gradient norm"],
        *["gradient norm: connector", "gradient norm: vision", "router: largest load"],
    ]
    assert "2 steps were skipped, since their gradients were infinite or undefined." in page.text
    assert "1 steps were loss spikes" in page.text
    assert "could not be read" not in page.text


def test_losses_that_are_not_numbers(write_run):
    lines = conftest.metrics(400)
    for line in lines[5:8]:
        line["loss"] = math.nan
        line["loss/caption"] = math.inf
    page = page_of(write_run(metrics="".join(json.dumps(line) + "\n" for line in lines)))
    assert "The loss is not a finite number at 3 of 40 logged steps." in page.text
    assert page.html.count('aria-label="loss"') == 4
    assert "nan" not in page.html.split("<h2>Loss</h2>")[1].split("<h2>")[0].lower()


def test_a_loss_that_is_never_a_number(write_run):
    page = page_of(write_run(metrics='{"step": 10, "loss": NaN}\n'))
    assert "The loss is not a finite number at 1 of 1 logged steps." in page.text


def test_a_half_written_last_line_is_no_problem(write_run):
    whole = "".join(json.dumps(line) + "\n" for line in conftest.metrics(100))
    page = page_of(write_run(metrics=whole + '{"step": 110, "lo', model=None, scores=None))
    assert "at step 100 of 1,500" in page.text
    assert "can't be read" not in page.text


def test_a_broken_line_in_the_middle_is_counted(write_run):
    lines = [json.dumps(line) + "\n" for line in conftest.metrics(100)]
    lines[4] = '{"step": 5' + "\n"
    page = page_of(write_run(metrics="".join(lines)))
    assert "1 of 10 lines of metrics.jsonl can't be read and are left out." in page.text


def test_failed_items_are_told(write_run):
    files = conftest.scores()
    files[0] |= {"errors": 3}
    files[0]["predictions"][0] |= {"prediction": None, "error": "picture can't be read", "score": 0.0}
    page = page_of(write_run(scores=files))
    assert "easy-vqa, 0 shots: 3 items failed and count as wrong." in page.text
    assert "picture can't be read" in page.text


def test_a_failure_leaves_the_old_page(write_run, monkeypatch):
    run = write_run()
    before = write_report(run).read_text()
    monkeypatch.setattr("mm1.report.page.render", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(run)
    assert (run / "report.html").read_text() == before
    assert not [file for file in run.iterdir() if file.name.startswith(".report")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """Return the content of a run in which one value, somewhere, is any JSON at all."""
    content: dict[str, Any] = {
        "environment.json": {"commit": "6437ed0", "cores": 2, "parameters": {"vision": 10, "connector": 5}},
        "plan/plan.json": conftest.plan(),
        "model/config.json": {"vision_config": {"num_hidden_layers": 4}, "connector": "average_pool"},
        "scores/pages.4-shot.json": conftest.scores()[5],
        "metrics.jsonl": conftest.metrics(20)[0],
    }
    content = copy.deepcopy(content)
    here: Any = content
    key: Any = draw(st.sampled_from(sorted(here)))
    while isinstance(here[key], dict | list) and here[key] and draw(st.integers(0, 3)):
        here = here[key]
        key = draw(st.sampled_from(sorted(here)) if isinstance(here, dict) else st.integers(0, len(here) - 1))
    here[key] = draw(JSON)
    return content


@given(damaged())
@settings(max_examples=15)
def test_any_damage_still_gives_a_page(content):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        for file, value in content.items():
            (run / file).parent.mkdir(exist_ok=True)
            (run / file).write_text(json.dumps(value) + "\n")
        assert_inert(page_of(run))
