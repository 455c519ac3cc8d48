"""A chat from its first line to its last: answers, pictures, examples, commands, what stops and what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.caption import MAX_NEW_TOKENS, caption_image
from mm1.evaluate.models.loading import load_generator
from tests.chat.conftest import QUESTIONS, Screen, chat
from tests.conftest import png


@pytest.mark.parametrize("kind", ["turns", "plain"])
def test_the_first_answer_is_that_of_caption(kind: str, home: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    answers = [caption_image(model, home / "red.png", question) for question in ("what color is it?", None)]
    for line, answer in zip(("what color is it?", ""), answers, strict=True):
        screen, _ = chat(model, line, pictures=("red.png",), max_new_tokens=MAX_NEW_TOKENS)
        assert screen.answers == [answer]
        assert len(answer) > 5
    assert answers[0] != answers[1]


def test_two_pictures_over_two_rounds(trained: Path, home: Path) -> None:
    """The second answer is about the second picture, and the prompt is that of training."""
    for first, second in (("red", "blue"), ("green", "red"), ("blue", "blue")):
        screen, session = chat(trained, f"{first}.png {QUESTIONS[0]}", f"{QUESTIONS[1]} '{home}/{second}.png'")
        assert screen.answers == [first, second]
        assert [len(one.pictures) for one in session.chat.rounds] == [1, 1]
        assert all("tokens in" in sentence for sentence in screen.said if sentence.startswith("["))


def test_a_long_answer_is_cut_and_says_so(turns: Path, home: Path) -> None:
    screen, _ = chat(turns, "what color is it?", max_new_tokens=4)
    assert "cut at 4 tokens, --max-new-tokens allows more" in screen.said[-2]


def test_several_pictures_in_one_line(turns: Path, home: Path) -> None:
    _, session = chat(turns, "red.png green.png alike?", pictures=("blue.png",))
    shown = [Path(str(picture.path)).name for picture in session.chat.rounds[0].pictures]
    assert shown == ["blue.png", "red.png", "green.png"]
    assert session.chat.rounds[0].question == "alike?"


def test_without_turns_lines_are_prompts_of_their_own(plain: Path, home: Path) -> None:
    screen, session = chat(plain, "red.png what?", "what?", "green.png what?")
    assert "was not trained on conversations" in screen.said[0]
    assert (
        screen.answers[0]
        == screen.answers[1]
        == caption_image(plain, home / "red.png", "what?")[: len(screen.answers[0])]
    )
    assert screen.answers[2] != screen.answers[0]
    document = session.chat.prompt(session.chat.next_round("", raw=True))
    assert document.parts == (Image(png("green"), str(home / "green.png")),)
    raw, session = chat(plain, "/image red.png", "/raw a red")
    generator = load_generator(plain)
    prompt = Document("x", "caption", (Image(png("red")), Text(" a red")))
    assert generator.generate([prompt], max_new_tokens=12, stop=("\n",)) == raw.answers


def test_examples(plain: Path, turns: Path, home: Path) -> None:
    """A folder's examples take the question that is asked; a file's have their own."""
    shots = home / "shots"
    shots.mkdir()
    for colour in ("blue", "green"):
        (shots / f"{colour}.png").write_bytes(png(colour))
        (shots / f"{colour}.txt").write_text(f"{colour}\n")
    _, session = chat(plain, shots=shots)
    document = session.chat.prompt(replace(session.chat.next_round("what?"), pictures=(Image(png("red")),)))
    asked = " Question: what? Short answer:"
    assert [part.text if isinstance(part, Text) else "picture" for part in document.parts] == [
        "picture", asked, " blue\n", "picture", asked, " green\n", "picture", asked,
    ]  # fmt: skip
    screen, session = chat(turns, "/shots shots 1", "/shots", "what?", "/shots none", "/shots a b")
    assert any(sentence.startswith("1 example from shots, ") for sentence in screen.said)
    assert screen.said[-2].startswith("error: /shots a b: give a folder")
    assert session.chat.examples == []

    (home / "shots.jsonl").write_text('{"image": "red.png", "question": "hue?", "answer": "red"}\n')
    _, session = chat(turns, shots=home / "shots.jsonl")
    document = session.chat.prompt(session.chat.next_round("what?"))
    assert document.meta["turns"] == ["user", "user", "assistant", "user"]
    assert [part.text for part in document.parts if isinstance(part, Text)] == ["hue?", "red", "what?"]
    rows = [{"role": "user", "content": "<image>hue?"}, {"role": "assistant", "content": "red"}]
    (home / "shots.jsonl").write_text(json.dumps({"messages": rows, "images": ["red.png"]}))
    _, other = chat(turns, shots=home / "shots.jsonl")
    assert other.chat.prompt(other.chat.next_round("what?")).parts[1:] == document.parts[1:]


def test_examples_that_are_none(turns: Path, home: Path) -> None:
    (home / "a").mkdir()
    (home / "a" / "red.png").write_bytes(png("red"))
    with pytest.raises(UserError, match=r"red\.png.*picture without a caption file: correct it, or take it out"):
        chat(turns, shots=home / "a")
    (home / "a" / "red.txt").write_text("red")
    (home / "a" / "blue.txt").write_text("blue")
    with pytest.raises(UserError, match=r"blue\.txt has no picture of its name"):
        chat(turns, shots=home / "a")
    with pytest.raises(UserError, match="no such folder or file of examples"):
        chat(turns, shots=home / "none")
    with pytest.raises(UserError, match=r"examples are a folder of pictures with \.txt files"):
        chat(turns, shots=home / "red.png")
    (home / "a" / "blue.txt").unlink()
    screen, _ = chat(turns, "/shots a 3")
    assert screen.said[-1].startswith("error: a: it has fewer examples than 3 (1): ask for fewer")


def test_ctrl_c_stops_an_answer_and_keeps_the_chat(turns: Path, home: Path) -> None:
    def interrupt(screen: Screen) -> None:
        if len(screen.answers) == 0 and len(screen._answer) > 8:
            raise KeyboardInterrupt

    screen, session = chat(turns, "red.png what?", "^C", "what?", interrupt=interrupt, max_new_tokens=40)
    first, second = screen.answers
    assert 8 < len(first) < 40
    assert caption_image(turns, home / "red.png", "what?").startswith(first)
    assert "stopped by Ctrl-C" in screen.said[2]
    assert [one.answer for one in session.chat.rounds] == [first, second]
    assert "(Ctrl-D or /quit ends the chat)" in screen.said[3]

    def at_once(screen: Screen) -> None:
        raise KeyboardInterrupt

    screen, session = chat(turns, "red.png what?", interrupt=at_once)
    assert session.chat.rounds == []
    assert len(session.chat.pending) == 1
    assert screen.said[-1].startswith("stopped before the first word")


def test_no_room_in_the_context(turns: Path, home: Path) -> None:
    screen, session = chat(turns, "red.png what?", "green.png " + "what? " * 500, "/undo", "/undo", "what?")
    (error,) = [sentence for sentence in screen.said if sentence.startswith("error: this needs")]
    assert "the model takes 512: /undo or /clear drops earlier rounds, /tiles shows what pictures take" in error
    assert screen.said[-3].startswith("error: /undo: nothing was said yet")
    assert len(session.chat.rounds[0].pictures) == 2  # those of the round taken back, and the one that waited


def test_commands(turns: Path, home: Path) -> None:
    screen, session = chat(
        turns, "/help", "/tiles", "/image red.png", "/image 'green.png' blue.png", "/tiles", "/tiles red.png",
        "what?", "/save kept.json", "/save kept.json", "/tile", "/imagine", "/raw x", "/image none.png", "/image",
        "/save", "/shots 'a", "/clear", "/undo", "/QUIT", "what?",
    )  # fmt: skip
    said = "\n".join(screen.said)
    assert "/image FILE" in said
    assert "error: /tiles: this chat has no picture yet" in said
    assert said.count("red.png: 20x20 px becomes 1 image (16 px), 4 tokens") == 2
    assert "saved to kept.json" in said
    assert "error: /save kept.json: this file exists already" in said
    assert "error: no command '/tile': did you mean /tiles? (put a space before it to send it as text)" in said
    assert "error: no command '/imagine': did you mean /image?" in said
    assert "error: /raw: this model takes turns" in said
    assert "error: none.png: no such file" in said
    assert "error: /save: name one file" in said
    assert "error: /shots 'a: a quote has no end" in said
    assert said.endswith("error: /undo: nothing was said yet")
    assert len(screen.answers) == 1
    assert session.chat.rounds == session.chat.pending == []
    assert len(json.loads((home / "kept.json").read_text())["rounds"][0]["pictures"]) == 3


def test_a_slash_that_is_text(turns: Path, home: Path) -> None:
    _, session = chat(turns, " /undo is what?", f"{home}/red.png what?", "and//or", "/usr/share is what?")
    assert [one.question for one in session.chat.rounds] == [
        "/undo is what?",
        "what?",
        "and//or",
        "/usr/share is what?",
    ]
    assert len(session.chat.rounds[1].pictures) == 1


def test_a_picture_that_is_none(turns: Path, home: Path) -> None:
    (home / "no.png").write_text("not a picture")
    screen, session = chat(turns, "no.png what?", "what?")
    assert screen.said[1].startswith("error: no.png: not a readable picture")
    assert [one.pictures for one in session.chat.rounds] == [()]
