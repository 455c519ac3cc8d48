"""A chat that is saved and goes on: the same answers, and one sentence where it can't."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mm1.chat import session as session_file
from mm1.chat.history import chats_folder, read_history
from mm1.errors import UserError
from tests.chat.conftest import chat
from tests.conftest import png


def test_a_chat_goes_on_where_it_was(turns: Path, home: Path) -> None:
    lines = ("red.png what?", "green.png what?", "what?")
    whole, _ = chat(turns, *lines)
    first, _ = chat(turns, *lines[:2], history=home / "chat.json")
    rest, _ = chat(turns, lines[2], history=home / "chat.json")
    assert first.answers + rest.answers == whole.answers
    assert rest.said[0] == f"2 rounds of {home}/chat.json"
    assert len(read_history(home / "chat.json").rounds) == 3
    assert not list(home.glob("*.partial"))
    again, _ = chat(turns, "/undo", lines[2], resume=True)  # the newest in the user's data folder: `whole`
    assert again.answers == whole.answers[-1:]
    assert again.said[-1].split("--history ")[1].startswith(str(chats_folder()))


def test_examples_come_back_too(plain: Path, home: Path) -> None:
    (home / "shots").mkdir()
    (home / "shots" / "a.png").write_bytes(png("yellow"))
    (home / "shots" / "a.txt").write_text("yellow")
    first, _ = chat(plain, "red.png what?", shots=home / "shots", history=home / "chat.json")
    second, _ = chat(plain, "what?", history=home / "chat.json")
    assert second.answers == first.answers
    (home / "shots" / "a.txt").write_text("blue")
    with pytest.raises(UserError, match="the examples of the chat .* have changed since"):
        chat(plain, history=home / "chat.json")


def test_a_picture_that_is_lost_or_changed(turns: Path, home: Path) -> None:
    chat(turns, "red.png what?", history=home / "chat.json")
    (home / "red.png").write_bytes(png("blue"))
    with pytest.raises(
        UserError, match=r"red\.png: this picture of the chat .* has changed since: put the old one back"
    ):
        chat(turns, history=home / "chat.json")
    (home / "red.png").unlink()
    with pytest.raises(UserError, match=r"red\.png: a picture of the chat .* can't be read .*: put it back"):
        chat(turns, history=home / "chat.json")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "not a chat that this mm1 saved"),
        ("[]", "not a chat that this mm1 saved"),
        ('{"format": 2}', "not a chat that this mm1 saved"),
        ('{"format": 1, "model": "x", "examples": null, "rounds": [{"question": 1}]}', "the chat is damaged"),
        ('{"format": 1, "model": "x", "examples": null, "rounds": 5}', "the chat is damaged"),
        ('{"format": 1, "model": "x", "examples": 5, "rounds": []}', "the chat is damaged"),
    ],
)
def test_a_file_that_is_no_chat(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "chat.json").write_text(content)
    with pytest.raises(UserError, match=rf"chat\.json: {sentence}"):
        read_history(tmp_path / "chat.json")


def test_where_chats_are_saved(turns: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat(turns, "what?", "/clear", "and?")
    files = sorted(chats_folder().iterdir())
    assert [json.loads(file.read_text())["rounds"][0]["question"] for file in files] == ["what?", "and?"]
    assert chats_folder().stat().st_mode & 0o077 == 0
    chat(turns, "/undo")
    assert len(list(chats_folder().iterdir())) == 2, "a chat without a round"
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "other"))
    monkeypatch.setattr(session_file, "load_generator", lambda *_, **__: pytest.fail("loads before it looks"))
    with pytest.raises(UserError, match="no chat with .* is saved in .*: leave --resume out"):
        chat(turns, resume=True)
    with pytest.raises(UserError, match="--resume takes the last chat, and --history names one"):
        chat(turns, resume=True, history=home / "x.json")


def test_a_chat_that_can_not_be_saved(turns: Path, home: Path) -> None:
    screen, _ = chat(turns, "what?", history=home / "none" / "chat.json")
    assert screen.said[-2].startswith(f"error: {home}/none/chat.json: the chat can't be saved there")
    assert len(screen.answers) == 1
