"""Words as they are made: together they are the answer, whatever tokens it came in."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mm1.chat.writing import AnswerWriter, printable
from mm1.evaluate.models.stops import Stops


class Bytes:
    """A tokenizer whose tokens are bytes, so that a letter takes up to four."""

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())


def write(text: str, stop: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the pieces that were written, and the answer."""
    pieces: list[str] = []
    stops = Stops(Bytes(), stop)
    writer = AnswerWriter(stops, stop, pieces.append)
    ids: list[int] = []
    for byte in text.encode():
        ids.append(byte)
        writer.take(ids)
        if stops.found(ids):
            break
    answer = stops.text(ids)
    writer.end(answer)
    return pieces, answer


@given(st.text("ab \n猫🙂é<|>", max_size=20), st.sampled_from([(), ("\n",), ("ab\n",), ("\n\n", "<|"), ("猫b",)]))
def test_the_pieces_make_the_answer(text: str, stop: tuple[str, ...]) -> None:
    pieces, answer = write(text, stop)
    assert "".join(pieces) == answer
    assert "\ufffd" not in answer


def test_letters_come_whole_and_at_once() -> None:
    assert write("猫 🙂!", ()) == (["猫", " 🙂", "!"], "猫 🙂!")
    assert write("a b\nc", ("\n",)) == (["a", " b"], "a b")
    assert write("a<|b", ("<|end",)) == (["a", "<|b"], "a<|b")


def test_a_tokenizer_that_changes_its_mind() -> None:
    pieces: list[str] = []
    writer = AnswerWriter(Stops(Bytes(), ()), (), pieces.append)
    writer.take(list(b"a ,"))
    writer.end("a, b")
    assert pieces == ["a ,", "\n", "a, b"]


def test_words_do_not_steer_the_terminal() -> None:
    assert printable("\x1b]0;title\x07a\x1b[2Jb\r\tc\n\x9b1m") == "]0;titlea[2Jb\tc\n1m"
