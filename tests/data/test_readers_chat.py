"""Readers of conversations: what becomes of them, and what is left out and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, Features, Image, List, Value

from mm1.data.build import build_from
from mm1.errors import UserError
from tests.data.sample_sources import picture, write_files, write_lines, write_parquet
from tests.data.test_readers import layout, read

ASK = {"role": "user", "content": "What?"}
ANSWER = {"role": "assistant", "content": "A ramp."}


def test_messages_in_json_lines(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": picture(1), "b.png": picture(2)})
    parts = [{"type": "text", "text": "Left or"}, {"type": "image"}, {"type": "text", "text": "right?"}]
    records = [
        {"messages": [{"role": "system", "content": "Be short."}, ASK, ANSWER], "source": "here"},
        {"messages": [{"role": "user", "content": parts}, ANSWER], "images": ["a.png"]},
        {"messages": [{"role": "user", "content": "<image>Both<image>?"}, ANSWER], "images": ["a.png", "b.png"]},
        {"prompt": [ASK], "completion": [ANSWER], "image": "b.png"},
        {"prompt": "What?", "completion": "A ramp."},
    ]
    documents, notes = read("messages", write_lines(tmp_path / "data.jsonl", records))
    assert [layout(document) for document in documents] == [
        ["Be short.", "What?", "A ramp."],
        ["Left or", "[picture]", "right?", "A ramp."],
        ["[picture]", "Both", "[picture]", "?", "A ramp."],
        ["[picture]", "What?", "A ramp."],
        ["What?", "A ramp."],
    ]
    assert documents[0].meta == {"source": "here", "turns": ["system", "user", "assistant"]}
    assert documents[1].meta["turns"] == ["user", "user", "user", "assistant"]
    assert [part.target for part in documents[0].parts if hasattr(part, "target")] == [False, False, True]
    assert [image.data for image in documents[2].images] == [picture(1), picture(2)]
    assert not notes.skipped.counts


def test_messages_in_parquet_as_trl_stores_them(tmp_path: Path) -> None:
    """Content as structs of type, text and index, the pictures in a column of their own, in another order here."""
    part = pa.struct([("type", pa.string()), ("text", pa.string()), ("index", pa.int64())])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
    content = [
        {"type": "image", "text": None, "index": 1},
        {"type": "text", "text": "and", "index": None},
        {"type": "image", "text": None, "index": 0},
    ]
    answer = [{"type": "text", "text": "A ramp.", "index": None}]
    messages = [[{"role": "user", "content": content}, {"role": "assistant", "content": answer}]]
    pictures = [[{"bytes": picture(1), "path": None}, {"bytes": picture(2), "path": None}]]
    write_parquet(tmp_path / "a.parquet", {"messages": pa.array(messages, pa.list_(message)), "images": pictures})
    ((document,), notes) = read("messages", tmp_path)
    assert layout(document) == ["[picture]", "and", "[picture]", "A ramp."]
    assert [image.data for image in document.images] == [picture(2), picture(1)]
    assert not notes.skipped.counts


def test_the_cauldron(tmp_path: Path) -> None:
    pairs = [[{"user": "What?", "assistant": "A ramp.", "source": "s"}, {"user": "Sure?", "assistant": "Yes."}]]
    pictures = [[{"bytes": picture(n), "path": None} for n in (1, 2)]]
    write_parquet(tmp_path / "a.parquet", {"images": pictures, "texts": pairs})
    ((document,), _) = read("messages", tmp_path, suffix="Answer briefly.")
    assert layout(document) == [
        "[picture]", "[picture]", "What?\nAnswer briefly.", "A ramp.", "Sure?\nAnswer briefly.", "Yes.",
    ]  # fmt: skip


def test_what_is_no_conversation_is_counted_with_its_row(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": picture(1)})
    empty = {"role": "assistant", "content": " \n"}
    held = {"role": "assistant", "content": [{"type": "image"}, {"type": "text", "text": "there"}]}
    records: list[dict[str, Any]] = [
        {"messages": [ANSWER, ASK, ANSWER]},
        {"messages": [{"role": "system", "content": "Be short."}, ANSWER]},
        {"messages": [ASK, ANSWER, ASK, empty]},
        {"messages": [ASK]},
        {"messages": [ASK, empty]},
        {"messages": [{"role": "user", "content": "<image><image>?"}, ANSWER], "images": ["a.png"]},
        {"messages": [ASK, held], "images": ["a.png"]},
        {"messages": [ASK, ANSWER], "images": ["gone.png"]},
        {"messages": [{"role": "tool", "content": "x"}, ANSWER]},
        {"messages": [{"role": "user", "content": [{"type": "video"}]}, ANSWER]},
        {"messages": []},
        {"messages": [ASK, ANSWER]},
    ]
    documents, notes = read("messages", write_lines(tmp_path / "data.jsonl", records))
    assert [document.id for document in documents] == ["data.jsonl:12"]
    assert dict(notes.skipped.counts) == {
        "conversation that starts with the assistant": 2,
        "conversation with an empty answer": 1,
        "conversation without an answer": 2,
        "conversation whose <image> marks and pictures differ in number": 1,
        "conversation with a picture in an answer": 1,
        "the picture's file is missing": 1,
        "conversation with calls of tools": 1,
        "conversation with video": 1,
        "record without turns of a conversation": 1,
    }
    assert notes.skipped.examples["conversation with an empty answer"] == ["data.jsonl:3"]


def test_llava_counts_the_same(tmp_path: Path) -> None:
    human, gpt = {"from": "human", "value": "?"}, {"from": "gpt", "value": "yes"}
    records = [
        {"conversations": [gpt, human, gpt]},
        {"conversations": [human, gpt, human, {"from": "gpt", "value": ""}]},
    ]
    write_files(tmp_path, {"x.json": json.dumps([*records, {"conversations": [human, gpt]}])})
    documents, notes = read("llava", tmp_path, suffix="Be brief.")
    assert layout(documents[0]) == ["?\nBe brief.", "yes"]
    assert dict(notes.skipped.counts) == {
        "conversation that starts with the assistant": 1,
        "conversation with an empty answer": 1,
    }


def test_questions(tmp_path: Path) -> None:
    suffix = "Answer the question using a single word or phrase."
    answers = [[{"answer": "no"}, {"answer": "yes"}, {"answer": "yes"}], [{"answer": "two"}]]
    write_parquet(
        tmp_path / "a.parquet",
        {"image": [picture(1), picture(2)], "question": ["Is it?", "How many?"], "answers": answers},
    )
    documents, _ = read("questions", tmp_path, suffix=suffix)
    assert [layout(document) for document in documents] == [
        ["[picture]", f"Is it?\n{suffix}", "yes"],
        ["[picture]", f"How many?\n{suffix}", "two"],
    ]
    assert documents[0].meta["turns"] == ["user", "user", "assistant"]


def test_questions_with_options_and_captions_as_answers(tmp_path: Path) -> None:
    letter = "Answer with the option's letter from the given choices directly."
    rows = [
        {"question": "Which?", "choices": ["a cat", "a dog"], "correct": 1},
        {"question": "Which?", "choices": ["a cat", "a dog"], "correct": "a cat"},
        {"question": "Which?", "choices": ["a cat", "a dog"], "correct": 5},
    ]
    options: dict[str, object] = {"options": "choices", "answer": "correct", "suffix": letter}
    documents, notes = read("questions", write_lines(tmp_path / "q.jsonl", rows), **options)
    assert layout(documents[0]) == [f"Which?\nA. a cat\nB. a dog\n{letter}", "B"]
    assert layout(documents[1])[1] == "A"
    assert notes.skipped.counts["question whose answer is none of its options"] == 1
    write_parquet(tmp_path / "c.parquet", {"image": [picture(1)], "caption": ["A ramp."]})
    asked = "Provide a one-sentence caption for the provided image."
    ((document,), _) = read("questions", tmp_path / "c.parquet", suffix=asked)
    assert layout(document) == ["[picture]", asked, "A ramp."]
    _, notes = read("questions", tmp_path / "c.parquet")
    assert dict(notes.skipped.counts) == {"record without a question": 1}
    with pytest.raises(UserError, match=r"there is no column correct; it has image, caption"):
        read("questions", tmp_path / "c.parquet", answer="correct")


def test_a_number_among_options_of_text_counts_them(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"choices": ["2", "4", "3", "1"], "correct": 2},
        {"choices": ["2", "4", "3", "1"], "correct": 2.0},
        {"choices": "['2', '4', '3', '1']", "correct": 2},
        {"choices": ["2", "4", "3", "1"], "correct": "2"},
        {"choices": [1, 2, 3], "correct": 2},
        {"choices": ["7", "9"], "correct": 9},
        {"choices": {"1": "one", "2": "two"}, "correct": 1},
    ]
    asked = [{"question": "How many?", **row} for row in rows]
    documents, _ = read("questions", write_lines(tmp_path / "q.jsonl", asked), options="choices", answer="correct")
    assert [layout(document)[-1] for document in documents] == ["C", "C", "C", "A", "B", "B", "A"]


@pytest.mark.parametrize("picture_", [b"", {"bytes": b"", "path": None}, [b""]])
def test_a_picture_of_zero_bytes_is_lost_and_not_none(tmp_path: Path, picture_: Any) -> None:
    one = picture_[0] if isinstance(picture_, list) else picture_
    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A bus."}]
    write_parquet(tmp_path / "m.parquet", {"images": [[one]], "messages": [turns]})
    write_parquet(tmp_path / "q.parquet", {"image": [picture_], "question": ["What?"], "answer": ["A bus."]})
    write_parquet(tmp_path / "o.parquet", {"images": [[one, None]], "texts": [[None, "A text."]]})
    for format_ in ("messages", "questions"):
        documents, notes = read(format_, tmp_path / f"{format_[0]}.parquet")
        assert (documents, dict(notes.skipped.counts)) == ([], {"picture of zero bytes": 1})
    ((page,), notes) = read("obelics", tmp_path / "o.parquet")
    assert (layout(page), dict(notes.lost.counts)) == (["A text.\n"], {"picture of zero bytes": 1})


def test_hub_datasets_of_conversations(tmp_path: Path) -> None:
    pair = {"user": Value("string"), "assistant": Value("string"), "source": Value("string")}
    rows = {
        "images": [[{"bytes": picture(1), "path": None}]],
        "texts": [[{"user": "What?", "assistant": "It.", "source": ""}]],
    }
    features = Features({"images": List(Image()), "texts": List(pair)})
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "cauldron" / "train-0.parquet")
    ((document,), _) = read("hub", tmp_path / "cauldron", suffix="Be brief.")
    assert layout(document) == ["[picture]", "What?\nBe brief.", "It."]
    rows = {"image": [{"bytes": picture(1), "path": None}], "question": ["What?"], "answer": ["It."]}
    features = Features({"image": Image(), "question": Value("string"), "answer": Value("string")})
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "vqa" / "train-0.parquet")
    ((document,), _) = read("hub", tmp_path / "vqa")
    assert layout(document) == ["[picture]", "What?", "It."]
    write_parquet(tmp_path / "chat" / "train-0.parquet", {"messages": [[ASK, ANSWER]]})
    ((document,), _) = read("hub", tmp_path / "chat")
    assert (document.kind, layout(document)) == ("chat", ["What?", "A ramp."])


def test_splits_of_one_corpus(tmp_path: Path) -> None:
    """Every set of a fine-tuning mixture is a split of its own."""
    source = write_lines(tmp_path / "a.jsonl", [{"messages": [ASK, ANSWER]}] * 3)
    for split in ("one", "two"):
        info = build_from("messages", [str(source)], tmp_path / "sft", split=split, workers=1)
    assert {name: entry["kinds"] for name, entry in info["splits"].items()} == {"one": {"chat": 3}, "two": {"chat": 3}}
