"""Small real corpora and a recipe for a tiny model, shared by all tests that need them."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import yaml
from PIL import Image as PILImage

from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Kind, Part, Text
from mm1.train.loop import Trainer

KINDS: dict[str, Kind] = {"captions": "caption", "pages": "interleaved", "prose": "text"}
"""Of the tiny corpora, by name."""
COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}

torch.set_num_threads(1)
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("mm1", deadline=None)
hypothesis.settings.load_profile("mm1")
# A shell lets what it starts in the background ignore Ctrl-C, and the processes of tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def png(colour: str, size: int = 20) -> bytes:
    """Return a PNG of one colour."""
    stream = io.BytesIO()
    PILImage.new("RGB", (size, size), COLOURS[colour]).save(stream, "PNG")
    return stream.getvalue()


def tiny_documents(kind: Kind, count: int) -> list[Document]:
    """Return `count` documents of a kind, of differing lengths, the same every time."""
    names = list(COLOURS)
    documents = []
    for i in range(count):
        parts: list[Part] = []
        if kind == "caption":
            colour = names[i % 4]
            parts = [Image(png(colour)), Text(f" a {colour} square" + " and more" * (i % 3))]
        elif kind == "interleaved":
            for j in range(1 + i % 5):
                colour = names[(i + j) % 4]
                parts += [Image(png(colour)), Text(" Colour:", target=False), Text(f" {colour}\n")]
        else:
            parts = [Text("Once upon a time there was a square. " * (1 + i % 4))]
        documents.append(Document(f"{kind}-{i}", kind, tuple(parts)))
    return documents


class Break(Exception):
    """Stands for whatever ends a training unexpectedly."""


@contextmanager
def breaking_at(number: int) -> Iterator[None]:
    """Have a training in this block end with `Break` before the step of that number; it must come so far."""
    step = Trainer._step

    def breaking(self: Trainer, at: int, *args: Any) -> int:
        if at == number:
            raise Break
        return step(self, at, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", breaking)
        with pytest.raises(Break):
            yield


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the corpora `captions`, `pages` and `prose`, each with the split `train`."""
    directory = tmp_path_factory.mktemp("data")
    for name, kind in KINDS.items():
        write_corpus(directory / name, {"train": tiny_documents(kind, 40)}, licence="none", sources=["made up"])
    return directory


@pytest.fixture
def data(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the data directory of this test."""
    monkeypatch.setenv("MM1_DATA", str(corpora))
    return corpora


def tiny_recipe() -> dict[str, Any]:
    """Return the contents of a recipe for a tiny model on those corpora, which trains in seconds."""
    return {
        "name": "tiny",
        "model": {
            "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
            "connector": {"kind": "average_pool", "num_tokens": 4},
            "language_model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2},
        },
        "tokenizer": {"vocab_size": 320},
        "data": {
            "sequence_length": 48,
            "images_per_sequence": 4,
            "mixture": {
                "caption": {"weight": 0.45, "sources": [{"corpus": "captions/train"}]},
                "interleaved": {"weight": 0.45, "sources": [{"corpus": "pages/train"}]},
                "text": {"weight": 0.1, "sources": [{"corpus": "prose/train"}]},
            },
        },
        "train": {
            "steps": 12,
            "batch_size": 4,
            "warmup_steps": 2,
            "log_every": 1,
            "checkpoint_every": 4,
            "dtype": "float32",
            "connector_learning_rate": None,
        },
    }


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """The recipe of `tiny_recipe`."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_recipe()))
    return file
