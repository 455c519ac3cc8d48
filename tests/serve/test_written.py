"""What can be shown of an answer while it is written: nothing that is taken back, and all of it in the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.evaluate.models.stops import Stops
from mm1.processing.tokenizer import train_tokenizer
from mm1.serve.written import Written

TOKENIZER: Any = train_tokenizer(["a red square, naïve café 🙂 日本語", "USER: what?\nASSISTANT: a"] * 9, 300)
END = TOKENIZER.eos_token_id
PLAIN = [token for token in range(len(TOKENIZER)) if token not in TOKENIZER.all_special_ids]


def write(ids: list[int], stop: list[str], most: int, strip: bool) -> tuple[Written, list[str]]:
    written = Written(TOKENIZER, {END}, stop, most, strip=strip)
    pieces = []
    for token in ids:
        pieces.append(written.add(token))
        if written.finish:
            break
    return written, pieces


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([*PLAIN, END]), min_size=1, max_size=30),
    st.lists(st.sampled_from(["a", "sq", "\n", " ", "é", "日", "🙂", "USER:", "\ufffd", "re s"]), max_size=3),
    st.integers(1, 30),
    st.booleans(),
)
def test_pieces_are_the_text(ids: list[int], stop: list[str], most: int, strip: bool) -> None:
    written, pieces = write([*ids, END], stop, most, strip)
    assert written.finish
    kept = [token for token in written.ids if token != END]
    expected = Stops(TOKENIZER, stop).cut(kept)
    assert written.text == (expected.strip() if strip else expected)
    assert "".join(pieces) == written.text
    assert not any(mark in written.text for mark in stop)


def test_half_a_character_waits() -> None:
    ids = TOKENIZER("日本🙂x", add_special_tokens=False)["input_ids"]
    assert len(ids) > 4  # some of these characters are several tokens
    written, pieces = write(ids, [], 100, strip=False)
    assert written.finish is None
    assert "".join(pieces) == "日本🙂x"
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_never_become_a_character_are_shown_in_the_end() -> None:
    (half, *_) = TOKENIZER("é" * 1, add_special_tokens=False)["input_ids"]
    byte = TOKENIZER.convert_tokens_to_ids("ð")  # the first of four bytes of a character
    _, pieces = write([half, byte, byte, END], [], 100, strip=False)
    assert pieces[-1].endswith("\ufffd")


@pytest.mark.parametrize(
    ("texts", "stop", "shown"),
    [
        (["a", "b", "c"], "bc", ["a", "", ""]),
        (["a", "b", "d"], "bc", ["a", "", "bd"]),
        (["a", "a", "b"], "ab", ["", "a", ""]),
        (["a", " ", "b"], "zz", ["a", "", " b"]),
    ],
)
def test_the_beginning_of_a_stop_string_waits(texts: list[str], stop: str, shown: list[str]) -> None:
    ids = [TOKENIZER(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert all(len(one) == 1 for one in ids)
    written = Written(TOKENIZER, {END}, [stop], 100, strip=True)
    assert [written.add(one[0]) for one in ids] == shown
