"""The short way of everyday records ends where the long way does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm1.data.readers.everyday import everyday_chat
from mm1.data.readers.layout import storable
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.reader import Notes
from mm1.data.readers.rows import Place
from mm1.data.readers.turns import chat_of_record
from mm1.data.readers.values import LeftOutError, is_plain, is_plain_text, plain_meta, trimmed
from mm1.document import Document, Text
from tests.data.odd_values import ODD_IN_TABLES
from tests.data.sample_sources import picture

TEXTS = st.sampled_from(
    [
        "What?", "A ramp.\n", "<image>", "<image>\nWhat?", "What? <image>", "a <b> c", "", "  \n", "\ufeffHi",
        "<image><image>", "<image> a <image>", "  code\n  more", "\n\n  code\n  more", "<video>", "<image 1>",
        "\n", "Größe \u3000",
    ]
)  # fmt: skip
TURNS = st.lists(st.tuples(st.sampled_from(["human", "user", "gpt", "assistant", "system", "tool", "User"]), TEXTS))
PICTURES = st.lists(st.sampled_from([picture(1), picture(2), b"no picture", "missing.png"]), max_size=2)


def outcome(record: dict[str, Any]) -> tuple[Document | str, Notes]:
    place = Place("a:1", Notes(), PictureFolder((str(Path.cwd()),)))
    try:
        return chat_of_record(record, place), place.notes
    except LeftOutError as error:
        return f"{error.reason} ({error.detail})", place.notes


@given(TURNS, PICTURES, st.sampled_from([("from", "value"), ("role", "content"), ("from", "content")]))
def test_conversations(turns: list[tuple[str, str]], pictures: list[Any], keys: tuple[str, str]) -> None:
    messages = [dict(zip(keys, turn, strict=True)) for turn in turns]
    record = {"conversations": messages, "images": pictures, "source": "here"}
    long_way = {**record, "conversations": [{**message, "weight": None} for message in messages]}
    assert outcome(record) == outcome(long_way)


@pytest.mark.parametrize("pictures", [[], [picture(1)]])
def test_everyday_conversations_take_the_short_way(pictures: list[bytes]) -> None:
    mark = "<image>\n" if pictures else ""
    for asked, answered in (("human", "gpt"), ("user", "assistant")):
        who, says = ("from", "value") if asked == "human" else ("role", "content")
        turns = [{who: asked, says: f"{mark}What?"}, {who: answered, says: "A ramp."}] * (1 if pictures else 3)
        document = everyday_chat(turns, pictures, Place("a", Notes(), PictureFolder(("/",))), {})
        assert document is not None
        assert len(document.images) == len(pictures)


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(ODD_IN_TABLES))
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner))


@given(st.dictionaries(st.text(), json_values()))
def test_plain_meta_stays_as_it_is(meta: dict[str, Any]) -> None:
    kept, lost = plain_meta(meta)
    if is_plain(meta):
        assert (kept, lost) == (meta, [])
    document = Document("a", "text", (Text("words"),), meta)
    assert storable(document, Notes()).meta == kept


def test_odd_meta_is_seen() -> None:
    assert not any(is_plain({"key": value}) or is_plain([1, [value]]) for value in ODD_IN_TABLES)
    assert is_plain({"key": ["words", 1, None, True, 2.5, {"a": []}], "other": "Größe"})


@given(st.text(st.characters()) | st.text(" \n\tab\u3000"))
def test_texts(text: str) -> None:
    assert is_plain_text(text) == ("\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text))
    without_blank_lines = text.rstrip()
    while "\n" in without_blank_lines and not without_blank_lines.partition("\n")[0].strip():
        without_blank_lines = without_blank_lines.partition("\n")[2]
    is_code = "\n" in without_blank_lines and without_blank_lines.startswith(("  ", "\t"))
    assert trimmed(text) == (without_blank_lines if is_code else text.strip())
