"""The nearest names for what a user misspelt: by the function, and in the sentences of commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mm1.corpora import corpus_options
from mm1.data.corpus import open_split, write_corpus
from mm1.errors import UserError
from mm1.evaluate.tasks.task import load_task
from mm1.model.resolve import resolve_model
from mm1.nearest import did_you_mean, nearest_path
from mm1.recipe import load_recipe
from mm1.report import write_report
from mm1.scaling.gpus import gpu
from mm1.study.schema import load_study
from tests.conftest import tiny_documents


def test_names() -> None:
    assert did_you_mean("captoin", ["caption", "chat", "text"]) == "did you mean caption or chat?"
    assert did_you_mean("trian", ["train", "heldout"]) == "did you mean train?"
    assert did_you_mean("xyzzy", ["caption", "chat"]) == "name one of caption, chat"
    assert did_you_mean("xyzzy", []) == "there is none"


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/demo/model").mkdir(parents=True)
    assert nearest_path("runs/dmeo") == "; did you mean runs/demo?"
    assert nearest_path("run/demo/model") == "; did you mean runs/demo/model?"
    assert nearest_path(tmp_path / "runs" / "demos") == f"; did you mean {tmp_path}/runs/demo?"
    assert nearest_path("run/other") == ""
    assert nearest_path("elsewhere/demo") == ""
    assert nearest_path("runs/demo") == ""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "runs" / "demo").mkdir(parents=True)
    (home / "mine.yaml").write_text("base: demo\n")
    (home / "task.yaml").write_text("promt: x\n")
    write_corpus(home / "data" / "pets", {"train": tiny_documents("caption", 4)}, licence="none", sources=["made up"])
    return home


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: load_recipe("dmeo"), "recipe 'dmeo' is unknown: did you mean demo"),
        (lambda: load_recipe("mien.yaml"), "; did you mean mine.yaml?"),
        (lambda: load_recipe("demo", ["model.vision.size=vit-l-15"]), "did you mean vit-l-14"),
        (lambda: load_recipe("demo", ["data.mixture.text.sources=[{corpus: a, wieght: 1}]"]), "did you mean 'weight'?"),
        (lambda: load_study("laptop/resolutoin"), "did you mean laptop/resolution"),
        (lambda: load_task("easy-vqq"), "did you mean easy-vqa"),
        (lambda: load_task("task.yaml"), "task.yaml: key 'promt': there is no such key: did you mean prompt"),
        (lambda: corpus_options("scense"), "did you mean scenes"),
        (lambda: gpu("h1000"), "did you mean h100"),
        (lambda: open_split("pet/train"), "; did you mean data/pets?"),
        (lambda: open_split("pets/trian"), "no split 'trian': did you mean train?"),
        (lambda: resolve_model("runs/dmeo"), "; did you mean runs/demo?"),
        (lambda: write_report(Path("runs/dem")), "; did you mean runs/demo?"),
    ],
)
def test_sentences(call: Callable[[], object], sentence: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.delenv("MM1_DATA", raising=False)
    with pytest.raises(UserError) as caught:
        call()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
