"""The command line as a user meets it: real processes, real files, exit codes and what is printed.

The demo runs in a new process; later commands are forked from one that has imported everything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from PIL import Image as PILImage
from transformers import CLIPModel

from mm1.cli import main
from tests.corpora.fake_sources import put_sources
from tests.train import forked

# The demo at a size that trains in seconds, on corpora that the small stand-ins of the packages allow.
SMALL = [
    "train.steps=6",
    "train.warmup_steps=1",
    "train.checkpoint_every=2",
    "model.language_model={hidden_size: 16, num_layers: 1, num_heads: 2}",
    "tokenizer.vocab_size=512",
    "evaluate.limit=8",
    "evaluate.shots=[0,2]",
    "encoder.model.vision.patch_size=16",
    "encoder.model.vision.hidden_size=16",
    "encoder.model.vision.num_layers=1",
    "encoder.model.text.hidden_size=16",
    "encoder.tokenizer.vocab_size=400",
    "encoder.train.steps=3",
    "encoder.train.warmup_steps=1",
    "encoder.train.batch_size=16",
    "corpora.scenes.count=60",
    "corpora.scenes.questions=9",
    "corpora.scenes.heldout=20",
    "corpora.pages.count=30",
    "corpora.pages.heldout=36",
    "corpora.pages.shots=2",
]
SETTINGS = [argument for setting in SMALL for argument in ("--set", setting)]


def variables(data: Path) -> dict[str, str]:
    return {"MM1_DATA": str(data), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def mm1(*arguments: object, data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    with chdir(data.parent):
        return forked.mm1(*arguments, environment=variables(data) | environment)


def mm1_anew(*arguments: object, data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a new process, where what is printed depends on what is read at its start."""
    command = [sys.executable, "-m", "mm1", *map(str, arguments)]
    variable = os.environ | variables(data) | environment
    return subprocess.run(command, cwd=data.parent, env=variable, capture_output=True, text=True, check=False)


def fails(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a command failed with one sentence that holds the words."""
    assert result.returncode == 2, result.stderr
    is_one_sentence(result.stderr, *words)


def is_one_sentence(output: str, *words: str) -> None:
    sentence = output[output.index("error:") :]
    assert "Traceback" not in output
    assert sentence.count("\n") == 1, sentence
    for word in words:
        assert word in sentence


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the demo has run on small stand-ins of its packages."""
    home = tmp_path_factory.mktemp("home")
    put_sources(home / "data")
    result = subprocess.run(
        [sys.executable, "-m", "mm1", "demo", *SETTINGS],
        cwd=home,
        env={**os.environ, **variables(home / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stderr
    assert "%|" not in result.stderr, "a progress bar of a library"
    return home


def test_the_demo_leaves_a_whole_run_and_a_report(home: Path) -> None:
    run = home / "runs" / "demo"
    assert {p.name for p in run.iterdir()} == {
        ".lock",
        ".plan.lock",
        "recipe.yaml",
        "environment.json",
        "tokenizer",
        "plan",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "scores",
        "report.html",
    }
    assert len(list((run / "scores").glob("*.json"))) == 6
    encoder = home / "runs" / "clip-demo"
    tower = CLIPModel.from_pretrained(encoder / "model").vision_model.config
    assert json.loads((run / "model" / "config.json").read_text())["vision_config"]["patch_size"] == tower.patch_size
    scores = json.loads((encoder / "scores" / "encoder.json").read_text())
    assert {line["corpus"] for line in scores} == {"scenes/heldout", "easy-vqa/test-captions", "openmoji/heldout"}
    page = (run / "report.html").read_text()
    assert all(word in page for word in ("easy-vqa", "scenes-caption", "pages", "swapped pictures", "<svg"))
    assert "<script" not in page
    predictions = json.loads((run / "scores" / "pages.2-shot.json").read_text())["predictions"]
    assert len(predictions) == 8
    assert all(len(p["shot_ids"]) == 2 and p["prompt"].count("<image>") == 3 for p in predictions)


def test_the_demo_again_does_nothing_twice(home: Path) -> None:
    files = {p: p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file() and p.name != "report.html"}
    result = mm1("demo", *SETTINGS, data=home / "data")
    assert result.returncode == 0, result.stderr
    changed = [p for p, before in files.items() if p.stat().st_mtime_ns != before and p.name != "recipe.yaml"]
    assert changed == []


def test_caption_and_question(home: Path) -> None:
    picture = home / "picture.png"
    PILImage.new("RGB", (50, 40), "red").save(picture)
    for more in ([], ["--question", "what color is the shape?"]):
        result = mm1_anew("caption", home / "runs" / "demo", picture, *more, data=home / "data")
        assert result.returncode == 0, result.stderr
        assert "%|" not in result.stderr, "a progress bar of a library"
        assert result.stdout.endswith("\n")


def test_show_in_the_terminal_and_as_a_page(home: Path) -> None:
    result = mm1("data", "show", "scenes/train", "--limit", 2, data=home / "data")
    assert result.returncode == 0
    assert result.stdout.count("picture 64x64 PNG") == 2
    result = mm1("data", "show", "scenes/train", "--html", home / "page.html", data=home / "data")
    assert result.returncode == 0
    assert "data:image/png;base64" in (home / "page.html").read_text()


def test_a_file_that_is_no_picture(home: Path) -> None:
    letter = home / "letter.png"
    letter.write_text("dear")
    fails(mm1("caption", home / "runs" / "demo", letter, data=home / "data"), "letter.png", "not a readable picture")
    missing = home / "none.png"
    fails(mm1("caption", home / "runs" / "demo", missing, data=home / "data"), "none.png", "check the path")


def test_a_run_of_another_recipe(home: Path) -> None:
    fails(mm1("demo", *SETTINGS, "--set", "train.steps=7", data=home / "data"), "train.steps (6 there, 7 now)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "demo", "--set", "train.stepz=3"], ["did you mean 'steps'"]),
        (["pretrain", "demo", "--set", "train.steps=-3"], ["train.steps", "greater than 0", "-3"]),
        (["demo", "--set", "encoder.train.stepz=3"], ["clip-demo", "did you mean 'steps'"]),
        (["demo", "--set", "encoder.seed=3", "--set", "model.vision.from=x"], ["--set encoder.seed=3"]),
        (["demo", "--set", "corpora.scene.count=3"], ["--set corpora.scene.count=3", "did you mean scenes?"]),
        (["demo", "--set", "corpora.scenes.colour=3"], ["no option 'colour'", "count"]),
        (["pretrain", "dem"], ["recipe 'dem' is unknown", "demo"]),
        (["evaluate", "nowhere", "--tasks", "pages"], ["'nowhere' is no model"]),
        (["evaluate", "runs/demo", "--tasks", "page"], ["page"]),
        (["evaluate", "runs/demo", "--shots", "0,x"], ["--shots 0,x"]),
        (["evaluate", "runs/demo", "--tasks", "pages", "--shots", "500"], ["500"]),
        (["report", "nowhere"], ["nowhere"]),
        (["data", "build", "scene"], ["corpus 'scene' is unknown", "scenes"]),
        (["data", "build", "scenes", "--set", "colour=3"], ["no option 'colour'", "count"]),
        (["data", "show", "scenes/all"], ["no split 'all'", "heldout"]),
    ],
)
def test_mistakes_are_one_sentence(
    home: Path, arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MM1_DATA", str(home / "data"))
    monkeypatch.setattr(sys, "argv", ["mm1", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    is_one_sentence(capsys.readouterr().err, *words)


def test_without_a_network_the_build_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_INDEX": "", "PIP_CONFIG_FILE": os.devnull}
    more = {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_RETRIES": "0"}
    fails(mm1("data", "build", "easy-vqa", data=data, **nowhere, **more), "easy-vqa", "network")
    assert [p for p in data.rglob("*") if p.is_file()] == []
