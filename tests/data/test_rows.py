"""Whatever a record holds, it costs that record: text or a reason, over all formats."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm1.data.build import build_from, read_shard
from mm1.data.corpus import Split
from mm1.data.readers import make_reader
from mm1.data.readers.layout import parse_json
from mm1.data.readers.reader import Notes
from mm1.data.readers.rows import UNEXPECTED
from mm1.data.readers.values import kind_of, trimmed
from mm1.document import Document
from mm1.errors import UserError
from tests.data.odd_values import NAN, ODD, ODD_COLUMNS, ODD_IN_TABLES, changed, deep
from tests.data.sample_sources import picture, write_files, write_lines, write_parquet, write_tar
from tests.data.test_readers import layout, read

ASK = {"role": "user", "content": "What?"}
ANSWER = {"role": "assistant", "content": "A ramp."}
RECORDS: list[tuple[str, dict[str, Any]]] = [
    ("text", {"text": "Some words.", "source": "here"}),
    (
        "llava",
        {
            "image": ["a.png", "a.png"],
            "system": "Be short.",
            "conversations": [
                {"from": "human", "value": "<image>\nLeft <image>?"},
                {"from": "gpt", "value": "A ramp."},
            ],
        },
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "index": 0}, {"type": "text", "text": "What?"}]},
                ANSWER,
            ],
            "images": ["a.png"],
        },
    ),
    ("messages", {"prompt": [ASK], "completion": "yes", "image": {"bytes": None, "path": "a.png"}}),
    ("messages", {"texts": [{"user": "Hi", "assistant": "Hello."}], "images": []}),
    (
        "mmc4",
        {
            "text_list": ["One.", "Two."],
            "image_info": [{"image_name": "a.png", "matched_text_index": 1, "matched_sim": 0.3}],
        },
    ),
    ("questions", {"image": "a.png", "question": "Which?", "answer": ["a", "b", "a"]}),
    ("questions", {"image": "a.png", "question": "Which?", "answer": 1, "choices": ["a", "b"]}),
]


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_an_odd_record_costs_itself(tmp_path: Path, number: int) -> None:
    """Six hundred records with odd values at any depth, between good ones."""
    format_, record = RECORDS[number]
    draw = random.Random(number)
    write_files(tmp_path, {"a.png": picture(1)})
    records: list[Any] = []
    for _ in range(600):
        odd: Any = record
        for _ in range(draw.choice((1, 1, 2, 3))):
            odd = changed(odd, draw.choice(ODD), draw)
        records += [record, odd if isinstance(odd, dict) else {"odd": odd}]
    reader = make_reader(format_, **({"options": "choices"} if "choices" in record else {}))
    (shard,) = reader.shards([str(write_lines(tmp_path / "x.jsonl", records))])
    info = read_shard(reader, shard, tmp_path / "out.arrow")
    json.dumps(info)
    assert info["documents"] >= 600
    assert info["read"] == 1200 == info["documents"] + sum(entry["count"] for entry in info["skipped"].values())
    assert not [reason for reason in info["skipped"] if reason.startswith(UNEXPECTED)]


def captions_in(format_: str, folder: Path, captions: list[Any]) -> Path:
    """Write captions as a format has them; those that JSON doesn't have only into parquet."""
    if format_ == "webdataset":
        members = [
            (f"{n:04d}.{end}", content)
            for n, caption in enumerate(captions)
            for end, content in (("png", picture(1)), ("json", json.dumps({"caption": caption}).encode()))
        ]
        return write_tar(folder / "x.tar", members)
    if format_ == "image-folder":
        for n, caption in enumerate(captions):
            write_files(folder / "in", {f"{n:04d}.png": picture(1), f"{n:04d}.json": json.dumps({"caption": caption})})
        return folder / "in"
    for n, caption in enumerate(captions):  # a file each: a column has one type
        write_parquet(folder / "in" / f"{n:04d}.parquet", {"image": [picture(1)], "caption": [caption]})
    return folder / "in"


NO_TEXT = {
    "caption that is an object": {"en": "a square"},
    "caption that is NaN": NAN,
    "caption that is true": True,
    "caption that is a number": 7,
    "caption that is null": None,
    "caption that is empty": " \n",
    "caption that is an empty list": [],
    "caption that is a list (--set caption_list=first, all or random takes from it)": ["a square", "a red tile"],
}


@pytest.mark.parametrize("format_", ["webdataset", "image-folder", "captions"])
def test_what_is_no_text_is_no_caption(tmp_path: Path, format_: str) -> None:
    documents, notes = read(format_, captions_in(format_, tmp_path, ["fine", *NO_TEXT.values(), "\ufeffmarked"]))
    assert [document.text for document in documents] == [" fine", " marked"]
    assert dict(notes.skipped.counts) == dict.fromkeys(NO_TEXT, 1)
    assert notes.read == 10


@pytest.mark.parametrize("format_", ["webdataset", "image-folder", "captions"])
def test_lists_of_captions(tmp_path: Path, format_: str) -> None:
    source = captions_in(format_, tmp_path, [["one", "two"], "three", [None, "four"]])

    def texts(rule: str) -> list[str]:
        return [document.text for document in read(format_, source, caption_list=rule)[0]]

    assert texts("first") == [" one", " three", " four"]
    assert texts("all") == [" one", " two", " three", " four"]
    assert texts("random") in ([" one", " three", " four"], [" two", " three", " four"])
    assert texts("random") == texts("random")
    drawn = {read(format_, source, caption_list="random", seed=seed)[0][0].text for seed in range(9)}
    assert drawn == {" one", " two"}
    documents, notes = read(format_, source, caption_list="all")
    assert len({document.id for document in documents}) == 4
    assert notes.skipped.counts == {"caption of a list that is no text": 1}
    assert notes.read == 5
    with pytest.raises(UserError, match="caption_list is 'last': choose one of leave-out, first, all, random"):
        read(format_, source, caption_list="last")


def test_a_list_of_captions_on_the_hub(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", {"image": [picture(1)], "caption": [["one", "two"]]})
    assert read("hub", tmp_path / "set")[0] == []
    assert [d.text for d in read("hub", tmp_path / "set", caption_list="all")[0]] == [" one", " two"]


def test_answers_may_be_numbers(tmp_path: Path) -> None:
    answers = [0, False, True, 2, 2.0, 2.5, "0", [0, 1, 1], [None, 3], {"answer": 4}, [{"answer": 5}, {"answer": None}]]
    odd = [None, NAN, {"text": "red"}, [None, None], [{"text": "two"}], [], "", [["a"]], float("inf")]
    rows = [{"question": "?", "answer": answer} for answer in [*answers, *odd]]
    documents, notes = read("questions", write_lines(tmp_path / "q.jsonl", rows))
    said = ["0", "no", "yes", "2", "2", "2.5", "0", "1", "3", "4", "5"]
    assert [layout(document)[-1] for document in documents] == said
    assert dict(notes.skipped.counts) == {
        "answer that is null": 2,
        "answer that is NaN": 1,
        "answer that is an object": 2,
        "answer that is an empty list": 1,
        "answer that is empty": 1,
        "answer that is a list": 1,
        "answer that is infinite": 1,
    }
    asked: list[Any] = [None, NAN, 3, True, ["a"], "", "fine?"]
    rows = [{"question": question, "answer": "yes"} for question in asked]
    documents, notes = read("questions", write_lines(tmp_path / "q.jsonl", rows))
    assert [layout(document) for document in documents] == [["fine?", "yes"]]
    assert sum(notes.skipped.counts.values()) == 6


def test_options_are_read_as_what_they_hold(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"options": "['Ants', 'Bees']", "answer": "B"},
        {"options": '["Ants", "Bees"]', "answer": 1},
        {"options": "{1: 'Ants', 2: 'Bees'}", "answer": 2},
        {"options": {"A": "Ants", "B": "Bees"}, "answer": "B"},
        {"options": {"A": "Ants", "B": "Bees"}, "answer": "Bees"},
        {"options": ["Ants", "Bees", None, ""], "answer": 1.0},
        {"options": ["Ants", None, "Bees"], "answer": "C"},
        {"options": [0, 1], "answer": 1},
    ]
    odd: list[dict[str, Any]] = [
        {"options": "A. Ants, B. Bees", "answer": "B"},
        {"options": 4, "answer": 0},
        {"options": None, "answer": 0},
        {"options": [], "answer": 0},
        {"options": ["m", "m²"], "answer": "²"},
        {"options": ["Ants", None], "answer": 1},
        {"options": [{"text": "Ants"}], "answer": 0},
        {"options": ["a"] * 27, "answer": 26},
        {"answer": 0},
    ]
    file = write_lines(tmp_path / "q.jsonl", [{"question": "Which?", **row} for row in [*rows, *odd]])
    documents, notes = read("questions", file, options="options")
    bees = ["Which?\nA. Ants\nB. Bees", "B"]
    assert [layout(document) for document in documents] == [bees] * 7 + [["Which?\nA. 0\nB. 1", "B"]]
    assert dict(notes.skipped.counts) == {
        "options that are a text": 1,
        "options that are a number": 1,
        "options that are null": 1,
        "question without options": 1,
        "question whose answer is none of its options": 2,
        "option that is an object": 1,
        "question with more than 26 options": 1,
        "record without 'options'": 1,
    }


TABLES: dict[str, dict[str, Any]] = {
    "captions": {"image": [picture(1)] * 3, "caption": ["one", "two", "three"]},
    "text": {"text": ["one", "two", "three"]},
    "messages": {"messages": [[ASK, ANSWER]] * 3},
    "questions": {"image": [picture(1)] * 3, "question": ["?"] * 3, "answer": ["x"] * 3},
}


@pytest.mark.parametrize("column", ODD_COLUMNS)
@pytest.mark.parametrize("format_", TABLES)
def test_metadata_never_costs_a_row(tmp_path: Path, format_: str, column: str) -> None:
    file = write_parquet(tmp_path / "x.parquet", {**TABLES[format_], "odd": ODD_COLUMNS[column]})
    info = build_from(format_, [str(file)], tmp_path / "to", workers=1)
    documents = list(Split(tmp_path / "to" / "train"))
    assert len(documents) == 3
    assert info["skipped"] == {}
    unreadable = {"beyond 9999": 2, "far time": 1, "time zone": 3, "duration": 1, "bad text": 1, "in a struct": 3}
    counted = {reason: entry["count"] for reason, entry in info["changed"].items()}
    reason = "metadata that can't be kept: null in its place"
    assert counted == ({reason: unreadable[column]} if column in unreadable else {})
    if column in unreadable:
        assert documents[0].meta["odd"] is None
    if column == "beyond 9999":
        assert documents[2].meta["odd"] == "1970-01-01"


@pytest.mark.parametrize("column", [name for name in ODD_COLUMNS if name not in ("uuid", "map")])
def test_metadata_never_costs_a_row_on_the_hub(tmp_path: Path, column: str) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", {"text": ["one", "two", "three"], "odd": ODD_COLUMNS[column]})
    documents, notes = read("hub", tmp_path / "set")
    assert [document.text for document in documents] == ["one", "two", "three"]
    assert not notes.skipped.counts


@pytest.mark.parametrize("column", ODD_COLUMNS)
@pytest.mark.parametrize("format_", TABLES)
def test_an_odd_column_in_the_place_of_another(tmp_path: Path, format_: str, column: str) -> None:
    for field in TABLES[format_]:
        file = write_parquet(tmp_path / f"{field}.parquet", {**TABLES[format_], field: ODD_COLUMNS[column]})
        documents, notes = read(format_, file)
        assert notes.read == 3
        assert notes.documents == len(documents) == 3 - sum(notes.skipped.counts.values())
        assert not [reason for reason in notes.skipped.counts if reason.startswith(UNEXPECTED)]


def test_metadata_of_every_kind_is_stored(tmp_path: Path) -> None:
    """Some of what JSON can hold is more than what Python writes."""
    records = [{"text": "fine", "meta": value} for value in [deep(60), deep(900), {"1": {"2": NAN}}, *ODD]]
    info = build_from("text", [str(write_lines(tmp_path / "x.jsonl", records))], tmp_path / "to", workers=1)
    assert info["splits"]["train"]["documents"] == len(records)
    assert info["changed"]["metadata that can't be kept: null in its place"]["count"] == 2


def test_rows_of_tables_as_python_holds_them() -> None:
    """Readers' functions take what other libraries' rows hold, numpy's values among it."""
    kinds = [kind_of(value) for value in ODD_IN_TABLES]
    assert kinds == [
        "bytes", "bytes and not UTF-8", "bytes", "a date or time", "a date or time", "a date or time", "a number",
        "NaN", "of the type UUID", "a list", "a number", "a number", "true", "an object", "a list",
    ]  # fmt: skip


def test_bytes_that_are_text_are_text(tmp_path: Path) -> None:
    captions = pa.array([b"a ramp", b"\xff"], pa.binary())
    write_parquet(tmp_path / "x.parquet", {"image": [picture(1)] * 2, "caption": captions})
    documents, notes = read("captions", tmp_path / "x.parquet")
    assert [document.text for document in documents] == [" a ramp"]
    assert notes.skipped.counts == {"caption that is bytes and not UTF-8": 1}


CODE = "    if x:\n        return y"


def test_code_keeps_the_indentation_of_its_first_line(tmp_path: Path) -> None:
    assert trimmed(f"\n \n{CODE}\n\n") == CODE
    assert trimmed("\tx\ny") == "\tx\ny"
    assert trimmed("  one line ") == "one line"
    assert trimmed(" prose\ngoes on ") == "prose\ngoes on"
    chat = [{"role": "user", "content": f"Fix:\n{CODE}"}, {"role": "assistant", "content": CODE + "\n"}]
    asked = [{"role": "user", "content": f"<image>\n{CODE}"}, ANSWER]
    write_files(tmp_path, {"a.png": picture(1), "a.html": f"<pre>{CODE}</pre>", "a.txt": f"\n{CODE}\n"})
    records = [{"messages": chat}, {"messages": asked, "images": ["a.png"]}]
    documents, _ = read("messages", write_lines(tmp_path / "m.jsonl", records))
    assert [layout(d) for d in documents] == [[f"Fix:\n{CODE}", CODE], ["[picture]", CODE, "A ramp."]]
    rows = [{"question": CODE, "answer": CODE}]
    assert layout(read("questions", write_lines(tmp_path / "q.jsonl", rows))[0][0]) == [CODE, CODE]
    assert layout(read("text", write_lines(tmp_path / "t.jsonl", [{"text": CODE}]))[0][0]) == [CODE]
    assert layout(read("text", tmp_path / "a.txt")[0][0]) == [CODE]
    assert layout(read("html", tmp_path / "a.html")[0][0]) == [CODE + "\n"]
    page = {"images": [None], "texts": [CODE]}
    write_parquet(tmp_path / "o.parquet", {name: [value] for name, value in page.items()})
    assert layout(read("obelics", tmp_path / "o.parquet")[0][0]) == [CODE + "\n"]


def test_the_account_is_in_the_corpus(tmp_path: Path) -> None:
    """Records left out, parts lost and what was put right are told apart."""
    write_files(tmp_path, {"a.png": picture(1)})
    info = {"image_name": "a.png", "matched_text_index": 0}
    gone = {"image_name": "gone.png", "matched_text_index": 0}
    records = [
        {"text_list": ["One.", None], "image_info": [info, gone]},
        {"text_list": ["Two.\0"], "image_info": []},
        {"text_list": 3},
    ]
    corpus = build_from("mmc4", [str(write_lines(tmp_path / "x.jsonl", records))], tmp_path / "to", workers=1)
    for account in (corpus, corpus["splits"]["train"]):
        assert account["skipped"] == {"text_list that is a number": {"count": 1, "examples": ["x.jsonl:3"]}}
        assert account["lost"] == {
            "sentence that is null": {"count": 1, "examples": ["x.jsonl:1[1]"]},
            "the picture's file is missing": {"count": 1, "examples": ["x.jsonl:1 (gone.png)"]},
        }
        assert account["changed"] == {"NUL characters removed from a text": {"count": 1, "examples": ["x.jsonl:2"]}}
    train = corpus["splits"]["train"]
    assert [train[name] for name in ("read", "documents", "images", "pictures_left_out")] == [3, 2, 1, 1]


def test_what_no_rule_foresees_costs_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(row: Any, place: Any, column: str) -> Document:
        if row["text"] == "odd":
            raise ZeroDivisionError("never seen\nbefore")
        return Document(place.name, "text", ())

    monkeypatch.setattr("mm1.data.readers.text.text_of_row", fails)
    _, notes = read("text", write_lines(tmp_path / "x.jsonl", [{"text": "odd"}]))
    assert notes.skipped.examples == {f"{UNEXPECTED} (ZeroDivisionError)": ["x.jsonl:1 (never seen before)"]}
    assert notes == Notes(skipped=notes.skipped)


@pytest.mark.parametrize("array", [False, True])
def test_a_number_of_thousands_of_digits_costs_no_record(tmp_path: Path, array: bool) -> None:
    """Python refuses to read it, and in an array it would cost all that come after it."""
    long = "1" + "0" * 5000
    records = ['{"text": "one"}', f'{{"text": "two", "id": {long}}}', f'{{"text": {long}}}', '{"text": "four"}']
    content = f"[{', '.join(records)}]" if array else "\n".join(records)
    write_files(tmp_path, {"a.json": content})
    documents, notes = read("text", tmp_path / "a.json")
    assert [document.text for document in documents] == ["one", "two", "four"]
    assert documents[1].meta == {"id": None}
    assert notes.changed.counts == {"metadata that can't be kept: null in its place": 1}
    assert notes.skipped.counts == {"text that is a number of thousands of digits": 1}


@pytest.mark.parametrize(
    "text", ["{}", " [1] \r\n", "\ufeff{}", "", "\n", "{} {}", "[1", '{"a": NaN}', "1\x0b", "nul", '"\\ud800"']
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_json_is_what_the_library_says(text: str, as_bytes: bool) -> None:
    content = text.encode("utf-8", "surrogatepass") if as_bytes else text
    try:
        expected = json.loads(content)
    except ValueError:
        with pytest.raises(ValueError, match="."):
            parse_json(content)
    else:
        assert repr(parse_json(content)) == repr(expected)
    for encoding in ("utf-16", "utf-32-be"):
        if as_bytes and text == "{}":
            assert parse_json(text.encode(encoding)) == {}


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.parquet": "url\tcaption\n", "b.parquet": picture(1), "c.parquet": ""})
    _, notes = read("captions", tmp_path)
    assert notes.skipped.counts == {
        "file that is no Parquet": 1,
        "file that is no Parquet: it is a PNG picture": 1,
        "damaged parquet: the rest of it could not be read": 1,
    }
