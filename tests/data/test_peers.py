"""What other libraries' files say: keys of conversations, pictures in every form, paths, and the mark `<image>`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, Features, Image, List, Value

from tests.data.sample_sources import picture, write_files, write_lines, write_parquet
from tests.data.test_readers import layout, read

BASE64 = base64.b64encode(picture(1)).decode()
PICTURE = "[picture]"


def turns(format_: str, *texts: Any) -> dict[str, Any]:
    """Return a record's turns in a format's keys, the user's and the assistant's one after the other."""
    if format_ == "llava":
        return {"conversations": [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]}
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}


def read_records(format_: str, folder: Path, records: list[Any]) -> tuple[list[list[str]], dict[str, int]]:
    """Return the layouts of what records become, and what is left out."""
    write_files(folder, {"a.png": picture(1), "b.png": picture(2)})
    documents, notes = read(format_, write_lines(folder / "x.jsonl", records))
    assert notes.read == len(records)
    return [layout(document) for document in documents], dict(notes.skipped.counts)


FORMATS = pytest.mark.parametrize("format_", ["llava", "messages"])


@FORMATS
def test_keys_beside_the_turns(tmp_path: Path, format_: str) -> None:
    plain, marked = turns(format_, "What?", "A ramp."), turns(format_, "<image>What?", "A ramp.")
    layouts, left_out = read_records(
        format_,
        tmp_path,
        [
            {"images": ["a.png"], **plain},
            {"images": ["a.png"], **marked},
            {"image": "a.png", **marked},
            {"image": ["a.png"], "images": None, **marked},
            {"system": "Be a pirate.", "image": "a.png", **marked},
            {"system": "", "image": "", "images": [], "videos": [], "tools": "", **plain},
            {"image": float("nan"), "video": None, **plain},
            {"video": "v.mp4", **plain},
            {"videos": ["v.mp4"], **plain},
            {"audios": ["a.wav"], **plain},
            turns(format_, "<video>\nWhat happens?", "Nothing."),
            turns(format_, "What is said?<audio>", "Nothing."),
            turns(format_, "What does <video> do in HTML?", "It plays."),
        ],
    )
    assert layouts == [
        *[[PICTURE, "What?", "A ramp."]] * 4,
        ["Be a pirate.", PICTURE, "What?", "A ramp."],
        *[["What?", "A ramp."]] * 2,
        ["What does <video> do in HTML?", "It plays."],
    ]
    assert left_out == {"conversation with video": 3, "conversation with audio": 2}


@FORMATS
def test_system_and_tools(tmp_path: Path, format_: str) -> None:
    plain = turns(format_, "What?", "A ramp.")
    system = turns(format_, "Be short.", "Yes.")
    (key,) = system
    system[key][0] |= {"role": "system"} if format_ == "messages" else {"from": "system"}
    system[key][1:1] = plain[key][:1]
    records = [
        {"system": "Another.", **system},
        {"system": {"no": "text"}, **plain},
        {"tools": [{"name": "search"}], **plain},
        {key: [*plain[key][:1], {**plain[key][1], "tool_calls": [{"name": "search"}]}]},
        {key: [*plain[key], {"role": "tool", "from": "observation", "content": "x", "value": "x"}, plain[key][1]]},
    ]
    documents, notes = read(format_, write_lines(tmp_path / "x.jsonl", records))
    assert [layout(document) for document in documents] == [["Be short.", "What?", "Yes."], *[["What?", "A ramp."]] * 2]
    assert dict(notes.lost.counts) == {
        "system prompt beside turns that begin with one": 1,
        "system prompt that is an object": 1,
        "tools of a conversation: kept as metadata only": 1,
    }
    assert documents[2].meta["tools"] == [{"name": "search"}]
    assert notes.skipped.counts == {"conversation with calls of tools": 2}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "base64": BASE64},
        {"type": "image", "image": {"bytes": None, "path": "a.png"}},
        {"type": "image", "image": BASE64},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
        {"type": "image_url", "image_url": "a.png"},
        {"type": "input_image", "image_url": "a.png"},
        {"image": "a.png"},
        {"type": "image", "text": None, "image": None, "url": "a.png", "index": None},
    ],
)
@pytest.mark.parametrize("format_", ["llava", "messages"])
def test_parts_that_hold_their_pictures(tmp_path: Path, format_: str, part: dict[str, Any]) -> None:
    content = ["Left or", part, {"type": "text", "text": "right?"}, {"text": "Say."}]
    layouts, left_out = read_records(format_, tmp_path, [turns(format_, content, "Left.")])
    assert left_out == {}
    assert layouts == [["Left or", PICTURE, "right?", "Say.", "Left."]]


@FORMATS
def test_pictures_and_marks_in_number(tmp_path: Path, format_: str) -> None:
    image, text = {"type": "image"}, {"type": "text", "text": "<image> is a tag"}
    layouts, left_out = read_records(
        format_,
        tmp_path,
        [
            {"images": ["a.png"], **turns(format_, [image, text], "Yes.")},
            {"images": ["a.png"], **turns(format_, [text], "Yes.")},
            {"images": ["a.png"], **turns(format_, "<image>What?", "The tag <image> is one.")},
            {"images": ["a.png"], **turns(format_, "What?", "The tags <image> and <image>.")},
            {"images": ["a.png", "b.png"], **turns(format_, "<image 2> or <image_1>?", "Both.")},
            {"images": ["a.png"], **turns(format_, [{**image, "image": "b.png"}, image, "?"], "Both.")},
            {"images": ["a.png"], **turns(format_, [{**image, "image": "a.png"}, "?"], "Told twice.")},
            {"images": ["a.png"], **turns(format_, [{**image, "index": 0.0}, "?"], "One.")},
            {"images": ["a.png"], **turns(format_, "Draw.", "<image>")},
            {"images": ["a.png"], **turns(format_, "<image><image>?", "One.")},
            {"images": ["a.png"], **turns(format_, [image, image, "?"], "One.")},
            {"images": ["a.png"], **turns(format_, [{**image, "index": 1}, "?"], "One.")},
            {"images": ["a.png"], **turns(format_, [{**image, "index": "0"}, "?"], "One.")},
        ],
    )
    assert layouts == [
        [PICTURE, "<image> is a tag", "Yes."],
        [PICTURE, "is a tag", "Yes."],
        [PICTURE, "What?", "The tag <image> is one."],
        [PICTURE, "What?", "The tags <image> and <image>."],
        [PICTURE, "or", PICTURE, "?", "Both."],
        [PICTURE, PICTURE, "?", "Both."],
        [PICTURE, "?", "Told twice."],
        [PICTURE, "?", "One."],
    ]
    assert left_out == {
        "conversation with a picture in an answer": 1,
        "conversation whose <image> marks and pictures differ in number": 3,
        "picture in a turn whose index is a text": 1,
    }


@FORMATS
def test_the_mark_is_text_where_there_is_no_picture(tmp_path: Path, format_: str) -> None:
    """Unless it stands where marks do: then a picture is missing, and the answer would be made up."""
    layouts, left_out = read_records(
        format_,
        tmp_path,
        [
            turns(format_, "What does <image> do in SVG?", "It is <image>, as in <image>."),
            turns(format_, "Name a tag.", "<image>"),
            {"images": [], **turns(format_, "<image>\nWhat?", "A ramp.")},
            turns(format_, "What?\n<image>", "A ramp."),
            turns(format_, "<image 1> What?", "A ramp."),
        ],
    )
    assert layouts == [
        ["What does <image> do in SVG?", "It is <image>, as in <image>."],
        ["Name a tag.", "<image>"],
    ]
    assert left_out == {"conversation whose <image> marks and pictures differ in number": 3}


def test_the_mark_in_questions_and_captions(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": picture(1)})
    asked = ["<image>\nWhat?", "What?<image>", "What is on <image> here?", "<image 1> What?"]
    rows = [{"image": "a.png", "question": question, "answer": "It."} for question in asked]
    rows += [{"question": "What does <image> do?", "answer": "It."}, {"question": "<image>What?", "answer": "It."}]
    documents, notes = read("questions", write_lines(tmp_path / "q.jsonl", rows), suffix="Be brief.")
    assert [layout(document) for document in documents] == [
        [PICTURE, "What?\nBe brief.", "It."],
        ["What?", PICTURE, "Be brief.", "It."],
        ["What is on", PICTURE, "here?\nBe brief.", "It."],
        [PICTURE, "What?\nBe brief.", "It."],
        ["What does <image> do?\nBe brief.", "It."],
    ]
    assert notes.skipped.counts == {"conversation whose <image> marks and pictures differ in number": 1}
    captions = ["<image>a ramp", "a ramp\n<image>", "the tag <image> here", "<image>"]
    write_parquet(tmp_path / "c.parquet", {"image": [picture(1)] * 4, "caption": captions})
    documents, notes = read("captions", tmp_path / "c.parquet")
    assert [document.text for document in documents] == [" a ramp", " a ramp", " the tag <image> here"]
    assert notes.skipped.counts == {"caption that is empty": 1}
    assert notes.changed.counts == {"<image> before or behind a caption: it stands for the picture": 2}


@FORMATS
def test_what_comes_behind_the_last_answer_is_cut_off(tmp_path: Path, format_: str) -> None:
    write_files(tmp_path, {"a.png": picture(1), "b.png": picture(2)})
    records = [
        {"images": ["a.png"], **turns(format_, "Hello?", "Hi.", "And this: <image>")},
        {"images": ["a.png", "gone.png"], **turns(format_, "<image>What?", "A ramp.", "<image>And this?")},
    ]
    documents, notes = read(format_, write_lines(tmp_path / "x.jsonl", records))
    assert [layout(document) for document in documents] == [["Hello?", "Hi."], [PICTURE, "What?", "A ramp."]]
    assert documents[0].meta["turns"] == ["user", "assistant"]
    assert notes.changed.counts == {"turns behind the last answer: cut off": 2}
    assert not notes.skipped.counts


def test_keys_of_any_library_under_any_name(tmp_path: Path) -> None:
    from_value = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]
    role_content = [{"role": "USER", "content": "What?"}, {"role": "model", "content": "It."}]
    records = [
        {key: value} for key in ("messages", "conversations", "conversation") for value in (from_value, role_content)
    ]
    for format_ in ("llava", "messages"):
        layouts, left_out = read_records(format_, tmp_path, records)
        assert layouts == [["What?", "It."]] * 6
        assert left_out == {}
    write_parquet(tmp_path / "set" / "train.parquet", {"conversations": [role_content]})
    assert [layout(document) for document in read("hub", tmp_path / "set")[0]] == [["What?", "It."]]


FORMS: dict[str, Any] = {
    "bytes": picture(1),
    "base64": BASE64,
    "base64 with lines": "\n".join(BASE64[n : n + 76] for n in range(0, len(BASE64), 76)),
    "base64 as bytes": BASE64.encode(),
    "data address": f"data:image/png;base64,{BASE64}",
    "path": "a.png",
    "quoted path": "a%20b.png",
    "path of windows": "sub\\c.png",
    "file address": "file://a.png",
    "numbers": list(picture(1)),
    "list of one": ["a.png"],
    "object": {"bytes": picture(1), "path": None},
    "object with base64": {"bytes": BASE64, "path": "somewhere.png"},
    "object with url": {"url": "a.png"},
}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_in_every_form(tmp_path: Path, form: str) -> None:
    value = FORMS[form]
    write_files(tmp_path, {"a.png": picture(1), "a b.png": picture(1), "sub/c.png": picture(1)})
    write_parquet(tmp_path / "c.parquet", {"image": [value], "caption": ["a ramp"]})
    write_parquet(tmp_path / "q.parquet", {"image": [value], "question": ["?"], "answer": ["It."]})
    write_parquet(
        tmp_path / "m.parquet", {"images": [[value]], **{k: [v] for k, v in turns("messages", "?", "It.").items()}}
    )
    write_parquet(tmp_path / "o.parquet", {"images": [[value]], "texts": pa.array([[None]], pa.list_(pa.string()))})
    found = {
        format_: read(format_, tmp_path / f"{format_[0]}.parquet")
        for format_ in ("captions", "questions", "messages", "obelics")
    }
    if form in ("numbers", "list of one"):  # columns of lists are several pictures there
        found = {"captions": found["captions"]}
    for (document,), notes in found.values():
        assert document.images[0].data == picture(1)
        assert not notes.skipped.counts
        assert not notes.lost.counts


def test_pictures_that_are_none_are_named_by_what_they_are(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "a picture that is a number": 7,
        "a picture that is true": True,
        "a list where one picture belongs": ["a.png", "a.png"],
        "a picture that is an empty text": "",
        "a picture that is an object without bytes, path or url": {"name": "a.png"},
        "a picture that is a text and not base64": {"bytes": "no", "path": "a.png"},
        "the picture is a web address: fetch it first (with img2dataset, say)": "https://example.org/a.png",
        "the picture lies on the Hub beside the rows: download the dataset, and read its folder": "hf://datasets/x/a.png",
        "a data: address that can't be decoded": "data:image/png",
    }
    for number, value in enumerate(odd.values()):
        write_parquet(tmp_path / f"{number}.parquet", {"image": [value], "caption": ["a ramp"]})
    _, notes = read("captions", tmp_path)
    assert dict(notes.skipped.counts) == dict.fromkeys(odd, 1)
    assert notes.pictures_left_out == len(odd)


SOURCES: dict[str, Any] = {
    "llava": {"image": "images/1.png", **turns("llava", "<image>What?", "It.")},
    "messages": {"images": ["images/1.png"], **turns("messages", "<image>What?", "It.")},
    "mmc4": {"text_list": ["One."], "image_info": [{"image_name": "images/1.png", "matched_text_index": 0}]},
    "questions": {"image": "images/1.png", "question": "?", "answer": "It."},
    "captions": {"image": "images/1.png", "caption": "one"},
    "obelics": {"images": ["images/1.png"], "texts": [None]},
}


def write_source(format_: str, file: Path) -> str:
    record = SOURCES[format_]
    if format_ in ("captions", "obelics"):
        return str(write_parquet(file.with_suffix(".parquet"), {name: [value] for name, value in record.items()}))
    return str(write_lines(file.with_suffix(".jsonl"), [record]))


@pytest.mark.parametrize("format_", SOURCES)
def test_paths_are_told_from_the_file_that_names_them(tmp_path: Path, format_: str) -> None:
    """Each of several files has its own pictures; then come the folder of the option, and the common one."""
    write_files(tmp_path, {"a/images/1.png": picture(1), "not-here/images/1.png": picture(2)})
    files = [write_source(format_, tmp_path / name / "x") for name in ("a", "not-here")]
    documents, notes = read(format_, *files)
    assert [document.images[0].data for document in documents] == [picture(1), picture(2)]
    assert not notes.skipped.counts | notes.lost.counts
    lone = write_source(format_, tmp_path / "c" / "x")
    (first, second), _ = read(format_, files[0], lone, pictures=str(tmp_path / "not-here"))
    assert [first.images[0].data, second.images[0].data] == [picture(1), picture(2)]
    (document,), _ = read(format_, lone, pictures="../not-here")  # from the file's folder, if not from here
    assert document.images[0].data == picture(2)
    write_files(tmp_path, {"images/1.png": picture(3)})
    documents, _ = read(format_, files[0], lone)
    assert [document.images[0].data for document in documents] == [picture(1), picture(3)]


def test_pictures_that_pages_load_late(tmp_path: Path) -> None:
    placeholder = "data:image/gif;base64," + base64.b64encode(picture(9, (1, 1), "GIF")).decode()
    tags = [
        f'<img src="{placeholder}" data-src="1.png">',
        '<img src="placeholder.png" data-original="1.png">',
        f'<img src="{placeholder}" srcset="small.png 1x, 1.png 2x">',
        '<img data-srcset="1.png 800w, gone.png 400w">',
        f'<picture><source srcset="1.png"><img src="{placeholder}"></picture>',
        '<img src="gone.png" srcset="1.png">',
        f'<img src="data:image/png;base64,{base64.b64encode(picture(1)).decode()}">',
    ]
    write_files(tmp_path, {"1.png": picture(1), "placeholder.png": picture(2, (1, 1))})
    write_files(tmp_path, {f"{n}.html": f"<p>text</p>{tag}" for n, tag in enumerate(tags)})
    documents, notes = read("html", tmp_path)
    assert [[image.data for image in document.images] for document in documents] == [[picture(1)]] * len(tags)
    assert not notes.lost.counts
    write_files(tmp_path, {"0.html": f'<p>text</p><img src="{placeholder}" data-src="gone.png"><img alt="x">'})
    (document,), notes = read("html", tmp_path / "0.html")
    assert document.kind == "text"
    assert dict(notes.lost.counts) == {"the picture's file is missing": 1, "img without an address": 1}


def test_pictures_inside_messages_of_a_dataset_of_the_hub(tmp_path: Path) -> None:
    part = {"type": Value("string"), "text": Value("string"), "image": Image()}
    features = Features({"messages": List({"role": Value("string"), "content": List(part)})})
    rows = []
    for data in (picture(1), b"\x89PNG\r\n\x1a\nnonsense", picture(2)):
        held = {"type": "image", "text": None, "image": {"bytes": data, "path": None}}
        ask, answer = ({"type": "text", "text": text, "image": None} for text in ("What?", "A ramp."))
        rows.append([{"role": "user", "content": [held, ask]}, {"role": "assistant", "content": [answer]}])
    Dataset.from_dict({"messages": rows}, features=features).to_parquet(tmp_path / "set" / "train-0.parquet")
    for format_ in ("hub", "messages"):
        documents, notes = read(format_, tmp_path / "set")
        assert [layout(document) for document in documents] == [[PICTURE, "What?", "A ramp."]] * 2
        assert [document.images[0].data for document in documents] == [picture(1), picture(2)]
        assert sum(notes.skipped.counts.values()) == 1


def test_json_of_mixed_types_on_the_hub(tmp_path: Path) -> None:
    """`datasets` stores what has no type of its own as JSON texts."""
    mixed = turns("messages", "Hi", "Hello.", [{"type": "text", "text": "And?"}], "Bye.")
    write_lines(tmp_path / "chat" / "train.jsonl", [mixed, turns("messages", "One", "Two.")])
    documents, _ = read("hub", tmp_path / "chat")
    assert [layout(document) for document in documents] == [["Hi", "Hello.", "And?", "Bye."], ["One", "Two."]]


def test_a_damaged_part_of_a_local_dataset_is_counted(tmp_path: Path) -> None:
    write_lines(tmp_path / "set" / "train-0.jsonl", [{"text": "one"}])
    write_files(tmp_path / "set", {"train-1.jsonl": json.dumps({"text": "two"}) + "\n{broken\n"})
    documents, notes = read("hub", tmp_path / "set")
    assert [document.text for document in documents] == ["one"]
    assert list(notes.skipped.counts) == ["damaged part of a dataset: the rest of it could not be read"]
