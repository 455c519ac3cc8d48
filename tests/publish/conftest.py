"""A run with its model, and a run that it started from; a Hub of the test's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from mm1.data.corpus import write_corpus
from mm1.model.resolve import model_hash
from mm1.processing.chat import default_chat_template
from tests.chat.conftest import save_model
from tests.conftest import tiny_documents
from tests.publish.fake_hub import TOKEN, FakeHub


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders `turns` and `plain`."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "turns", default_chat_template())
    save_model(folder / "plain", None)
    return folder


@pytest.fixture
def runs(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs `base` (pre-trained) and `chat` (fine-tuned), which is where the test is."""
    home = tmp_path / "home of alice"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MM1_DATA", str(home / "data"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    write_corpus(
        home / "data" / "pages",
        {"train": tiny_documents("interleaved", 4)},
        licence="CC BY 4.0",
        sources=["https://example.org/a/b.tar", f"{home}/raw files/x.tar"],
    )
    start = {"vision": {"from": "openai/clip-vit-large-patch14"}, "language_model": {"from": "smollm2"}}
    make_run(home / "base", models / "plain", start, "pages/train")
    make_run(home / "chat", models / "turns", {"from": str(home / "base")}, f"{home}/elsewhere/talks/train")
    return home


def make_run(run: Path, model: Path, start: Mapping[str, object], corpus: str) -> None:
    """Make a run's directory as training and evaluation write it."""
    shutil.copytree(model, run / "model")
    source = {"corpus": corpus, "weight": 1.0}
    recipe = {
        "name": f"tiny-{run.name}",
        "model": start,
        "data": {"mixture": {"chat": {"weight": 1, "sources": [source]}}},
        "train": {"steps": 5, "warmup_steps": 1},
        "evaluate": {"tasks": ["colours"]},
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    environment = {"mm1": "0.1.0", "torch": "2.13.0", "commit": "abc", "parameters": {"vision": 10, "connector": 5}}
    (run / "environment.json").write_text(json.dumps(environment))
    figures = {"kind": "chat", "sequences": 5, "documents": 7, "epochs": 0.5}
    plan = {"hash": "55aa", "steps": 5, "batch_size": 4, "tokens": 1000, "images": 20, "sequence_length": 64}
    (run / "plan").mkdir()
    (run / "plan" / "plan.json").write_text(
        json.dumps({**plan, "images_per_sequence": 10, "sources": {corpus: figures}})
    )
    result = {
        "task": "colours",
        "metric": "accuracy",
        "score": 0.812,
        "interval": [0.8, 0.82],
        "items": 500,
        "floors": {"majority": {"score": 0.25, "answer": "red"}},
        "protocol": {"model": str(run), "model_hash": model_hash(run / "model")},
    }
    (run / "scores").mkdir()
    (run / "scores" / "colours.0-shot.json").write_text(json.dumps({**result, "shots": 0}))
    other = {**result, "shots": 4, "score": 0.9, "protocol": {"model_hash": "of others"}}
    (run / "scores" / "colours.4-shot.json").write_text(json.dumps(other))


@pytest.fixture
def hub(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub and a token for it, for this process and those that it starts."""
    server = FakeHub()
    use_hub(server.address, tmp_path / "hf" / "hub", monkeypatch)
    yield server
    server.shutdown()
    server.server_close()


def use_hub(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `huggingface_hub` ask a Hub at an address. It reads the variables when it is imported."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # Xet is the protocol of another server, of which there is none here.
    settings = {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
