"""Two tiny models in folders: one that takes turns, one that doesn't. Pictures, and a chat on a screen of the test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mm1.chat.loop import hold_chat
from mm1.chat.session import ChatSettings, Session
from mm1.chat.terminal import Terminal
from mm1.document import Document, Image, Text
from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import ModelRecipe
from tests.conftest import COLOURS, png

TEXTS = ["USER: Question: what color is it? Short answer: red green blue yellow\nASSISTANT: é 猫 🙂 yes no"] * 8


def save_model(folder: Path, template: str | None) -> Path:
    """Save a random model whose answers depend on all of the prompt."""
    torch.manual_seed(3)
    tokenizer = train_tokenizer(TEXTS, 330)
    processor = build_processor(tokenizer, image_size=16, tokens_per_image=4, chat_template=template)
    content = {
        "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "connector": {"kind": "average_pool", "num_tokens": 4},
        "language_model": {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_positions": 512},
    }
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = build_model(
        ModelRecipe.model_validate(content),
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        **ids,
    )
    for parameter in model.parameters():
        parameter.data.mul_(4.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "turns", default_chat_template())


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "plain", None)


@pytest.fixture(scope="session")
def trained(turns: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, fine-tuned on conversations about two pictures, until it tells their colours."""
    folder = tmp_path_factory.mktemp("models") / "trained"
    model, processor = MM1ForConditionalGeneration.from_pretrained(turns), MM1Processor.from_pretrained(turns)
    for parameter in model.parameters():
        parameter.data.div_(4.0)
    documents = [processor.encode(two_rounds(*colours)) for colours in itertools.product(COLOURS, COLOURS)]
    length = max(len(document.input_ids) for document in documents)
    ids = torch.full((len(documents), length), processor.tokenizer.pad_token_id)
    labels = torch.full((len(documents), length), -100)
    for row, document in enumerate(documents):
        own = torch.from_numpy(document.input_ids)
        ids[row, : len(own)] = own
        labels[row, : len(own)] = torch.where(torch.from_numpy(document.target), own, -100)
    pixels = np.concatenate([processor.pixel_values(document.images) for document in documents])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(80):
        output = model(input_ids=ids, pixel_values=processor.normalize(torch.from_numpy(pixels)), labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


QUESTIONS = ("what color is it?", "what color is that?")


def two_rounds(first: str, second: str) -> Document:
    parts: list[Image | Text] = []
    for colour, question in zip((first, second), QUESTIONS, strict=True):
        parts += [Image(png(colour)), Text(question, target=False), Text(colour)]
    return Document("two", "chat", tuple(parts), {"turns": ["user", "user", "assistant"] * 2})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with pictures; and a data folder of the user's own."""
    for color in ("red", "green", "blue"):
        (tmp_path / f"{color}.png").write_bytes(png(color))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return tmp_path


class Screen(Terminal):
    """A terminal with a person at it, whose lines are given; `interrupt` is called before each piece of an answer."""

    def __init__(self, lines: Iterator[str], interrupt: Any = None) -> None:
        self.interactive, self.is_screen, self._show = True, True, None
        self.lines, self.interrupt = lines, interrupt
        self.answers: list[str] = []
        self.said: list[str] = []
        self._answer = ""

    def read(self) -> str | None:
        line = next(self.lines, None)
        if line == "^C":
            raise KeyboardInterrupt
        return line

    def write(self, words: str) -> None:
        if self.interrupt:
            self.interrupt(self)
        self._answer += words

    def end_answer(self) -> None:
        self.answers.append(self._answer)
        self._answer = ""

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def complain(self, sentence: str) -> None:
        self.said.append(f"error: {sentence}")


def chat(
    model: Path,
    *lines: str,
    pictures: tuple[str, ...] = (),
    shots: Path | None = None,
    interrupt: Any = None,
    **settings: Any,
) -> tuple[Screen, Session]:
    """Hold a chat, and return its screen and the session."""
    screen = Screen(iter(lines), interrupt)
    given: dict[str, Any] = {"max_new_tokens": 12, "stop": ("\n",), "device": "cpu"} | settings
    session = Session(str(model), ChatSettings(**given), screen)
    hold_chat(session, pictures, shots)
    return screen, session
