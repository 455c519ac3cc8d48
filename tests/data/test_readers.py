"""Every reader on its format: order, layout, meta, ids."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from mm1.data.readers import READERS, make_reader
from mm1.data.readers.find import expand_braces
from mm1.data.readers.reader import Notes
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from tests.data.sample_sources import (
    picture,
    webdataset_members,
    write_every_format,
    write_files,
    write_lines,
    write_parquet,
    write_tar,
)


def read(format_: str, *patterns: Path | str, **options: object) -> tuple[list[Document], Notes]:
    reader = make_reader(format_, **options)
    notes = Notes()
    return [d for shard in reader.shards([str(p) for p in patterns]) for d in reader.read(shard, notes)], notes


def layout(document: Document) -> list[str]:
    return [part.text if isinstance(part, Text) else "[picture]" for part in document.parts]


def test_braces() -> None:
    assert expand_braces("{a,b}/{08..10}.tar") == [f"{x}/{n}.tar" for x in "ab" for n in ("08", "09", "10")]
    assert expand_braces("{3..1}") == ["3", "2", "1"]
    assert expand_braces("plain{}{x}") == ["plain{}{x}"]


def test_patterns_are_taken_in_order_and_each_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c/d.txt", "c/.hidden.txt", "c/other.png"):
        write_files(tmp_path, {name: name})
    documents, _ = read("text", tmp_path / "b.txt", tmp_path / "*.txt", tmp_path)
    assert [document.id for document in documents] == ["b.txt", "a.txt", "c/d.txt"]
    with pytest.raises(UserError, match=r"nothing\*: no such file"):
        read("text", tmp_path / "nothing*")


def test_unknown_format_and_option() -> None:
    with pytest.raises(UserError, match="no format is called 'webdatset': did you mean webdataset"):
        make_reader("webdatset")
    with pytest.raises(UserError, match="format 'mmc4' has no option 'picture': did you mean pictures"):
        make_reader("mmc4", picture="x")
    with pytest.raises(UserError, match=r"must be of type bool \(given: 1\)"):
        make_reader("text", lines=1)


def test_webdataset(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", webdataset_members(2))
    write_tar(tmp_path / "00001.tar", webdataset_members(2, first=2))
    documents, notes = read("webdataset", f"{tmp_path}/{{00000..00001}}.tar")
    assert [document.id for document in documents] == [
        "00000.tar/000000000", "00000.tar/000000001", "00001.tar/000000002", "00001.tar/000000003",
    ]  # fmt: skip
    assert layout(documents[1]) == ["[picture]", " caption 1"]
    assert documents[1].images[0] == Image(picture(1, format_="JPEG"), "https://example.org/1.jpg")
    assert documents[1].meta == {"url": "https://example.org/1.jpg", "width": 24, "key": "000000001"}
    assert not notes.skipped.counts
    assert not notes.changed.counts


def test_webdataset_sample_without_caption_picture_or_good_json(tmp_path: Path) -> None:
    members = [
        ("a.png", picture()), ("a.json", b'{"caption": "from json"}'),
        ("b.png", picture()),
        ("c.txt", b"no picture"),
        ("d.png", picture()), ("d.txt", b"caf\xe9"), ("d.json", b"{broken"),
        ("e.png", b""), ("e.txt", b"zero bytes"),
    ]  # fmt: skip
    documents, notes = read("webdataset", write_tar(tmp_path / "x.tar", members))
    assert [layout(document)[1] for document in documents] == [" from json", " caf\ufffd"]
    assert notes.skipped.as_dict() == {
        "picture of zero bytes": {"count": 1, "examples": ["x.tar/e"]},
        "sample without a caption": {"count": 1, "examples": ["x.tar/b"]},
        "sample without a picture": {"count": 1, "examples": ["x.tar/c (txt)"]},
    }
    assert set(notes.changed.counts) == {
        "broken .json beside a picture: taken without it",
        "text that is not UTF-8: bad bytes replaced by U+FFFD",
    }


@pytest.mark.parametrize("length", [100, 511, 512, 700, 1024, 2000, 5000])
def test_truncated_tar_yields_what_is_whole_and_says_so(tmp_path: Path, length: int) -> None:
    whole = write_tar(tmp_path / "whole.tar", webdataset_members(3)).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:length])
    documents, notes = read("webdataset", tmp_path / "cut.tar")
    complete, _ = read("webdataset", tmp_path / "whole.tar")
    assert len(documents) < 3
    assert [d.text for d in documents] == [d.text for d in complete[: len(documents)]]
    assert notes.skipped.counts or notes.changed.counts


def test_damaged_header_inside_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    content = bytearray(write_tar(tmp_path / "x.tar", webdataset_members(3)).read_bytes())
    content[content.index(b"000000002.jpg")] ^= 0xFF
    (tmp_path / "x.tar").write_bytes(content)
    documents, notes = read("webdataset", tmp_path / "x.tar")
    assert len(documents) == 2
    assert notes.skipped.examples["damaged tar: the rest of it could not be read"] == [
        "x.tar after 000000001.json (what comes next is no header of a file)"
    ]


def test_obelics(tmp_path: Path) -> None:
    write_every_format(tmp_path)
    documents, notes = read("obelics", tmp_path / "obelics")
    assert [layout(document) for document in documents] == [
        ["[picture]", " First.\nSecond.\n"],
        ["Before.\n", "[picture]", "[picture]"],
    ]
    assert documents[0].images[0].path == "https://example.org/a.png"
    assert documents[0].meta == {"url": "https://example.org"}
    assert not notes.skipped.counts


def test_obelics_with_files_addresses_and_bad_rows(tmp_path: Path) -> None:
    write_files(tmp_path / "images", {"a.png": picture(1)})
    write_parquet(
        tmp_path / "x.parquet",
        {
            "images": [
                ["a.png"],
                ["https://example.org/b.png"],
                ["../../x.parquet", None],
                ["gone.png", None],
                ["a.png"],
            ],
            "texts": [[None], [None], [None, "kept"], [None, "too"], [None, "longer"]],
            "metadata": ["{broken", None, None, None, None],
        },
    )
    documents, notes = read("obelics", tmp_path / "x.parquet", pictures=str(tmp_path / "images"))
    assert [layout(document) for document in documents] == [["[picture]"], ["kept\n"], ["too\n"]]
    assert dict(notes.skipped.counts) == {
        "page without text and usable pictures": 1,
        "images and texts of different numbers": 1,
    }
    assert dict(notes.lost.counts) == {
        "the picture is a web address: fetch it first (with img2dataset, say)": 1,
        "the picture lies outside of the source folder": 1,
        "the picture's file is missing": 1,
    }
    assert notes.pictures_left_out == 3
    assert dict(notes.changed.counts) == {"broken metadata: row taken without it": 1}


def test_parquet_without_the_columns_lists_those_there_are(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", {"picture": [b""], "words": ["a"]})
    with pytest.raises(UserError, match=r"x.parquet: there is no column images; it has picture, words: choose"):
        read("obelics", tmp_path)
    with pytest.raises(UserError, match=r"no column image or jpg or .*; it has picture, words"):
        read("captions", tmp_path)
    with pytest.raises(UserError, match=r"no column text; it has"):
        read("text", tmp_path)


def test_damaged_parquet_is_counted(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "a.parquet", {"text": ["word " * 50] * 100}).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.parquet").write_bytes(b"")
    documents, notes = read("text", tmp_path)
    assert len(documents) == 100
    assert notes.skipped.counts["damaged parquet: the rest of it could not be read"] == 2


def test_captions_finds_columns_or_takes_those_named(tmp_path: Path) -> None:
    image = pa.array([{"bytes": picture(1), "path": "a.png"}, {"bytes": None, "path": "b.png"}])
    write_parquet(
        tmp_path / "x.parquet", {"image": image, "text": ["a", "b"], "alt": ["c", None], "url": ["https://e.org", None]}
    )
    write_files(tmp_path, {"b.png": picture(2)})
    documents, _ = read("captions", tmp_path / "x.parquet")
    assert [layout(document) for document in documents] == [["[picture]", " a"], ["[picture]", " b"]]
    assert [document.images[0].data for document in documents] == [picture(1), picture(2)]
    assert [document.images[0].path for document in documents] == ["https://e.org", "b.png"]
    assert documents[0].meta == {"alt": "c", "url": "https://e.org"}
    documents, notes = read("captions", tmp_path / "x.parquet", caption="alt")
    assert [document.text for document in documents] == [" c"]
    assert notes.skipped.counts == {"caption that is null": 1}


def test_mmc4_puts_a_picture_before_its_sentence(tmp_path: Path) -> None:
    write_every_format(tmp_path)
    documents, notes = read("mmc4", tmp_path / "mmc4" / "docs.jsonl", pictures=str(tmp_path / "mmc4" / "images"))
    assert layout(documents[0]) == ["[picture]", " One.\n", "[picture]", " Two. Three.\n"]
    assert [image.data for image in documents[0].images] == [picture(2), picture(1)]
    assert documents[0].images[1].path == "https://e.org/a"
    assert documents[0].meta == {"url": "https://example.org/page"}
    assert layout(documents[1]) == ["Alone.\n"]
    assert not notes.skipped.counts
    documents, notes = read(
        "mmc4", tmp_path / "mmc4" / "docs.jsonl", pictures=str(tmp_path / "mmc4" / "images"), min_similarity=0.24
    )
    assert layout(documents[0]) == ["One.\n", "[picture]", " Two. Three.\n"]
    assert not notes.skipped.counts
    assert notes.lost.counts == {"matched_sim below 0.24": 1}
    assert notes.pictures_left_out == 0  # it is what was asked for


def test_mmc4_bad_records(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "x.jsonl",
        [
            {"text_list": "no list"},
            {"text_list": ["a"], "image_info": {"image_name": "x"}},
            {"text_list": ["a"], "image_info": [{"matched_text_index": 0}, 7]},
            {"text_list": ["a"], "image_info": [{"image_name": "x.png", "matched_text_index": 1}]},
            ["no object"],
        ],
    )
    with file.open("a") as stream:
        stream.write('{"text_list": ["cut of')
    documents, notes = read("mmc4", file)
    assert len(documents) == 3
    assert dict(notes.lost.counts) == {
        "image_info that is an object": 1,
        "image_info without an image_name": 2,
        "matched_text_index that names no sentence": 1,
    }
    assert dict(notes.skipped.counts) == {
        "text_list that is a text": 1,
        "JSON line that is no object": 1,
        "broken JSON line": 1,
    }
    assert notes.skipped.examples["broken JSON line"][0].startswith("x.jsonl:6 (")


def test_text(tmp_path: Path) -> None:
    write_every_format(tmp_path)
    documents, notes = read("text", tmp_path / "text")
    assert [(d.id, d.text, dict(d.meta)) for d in documents] == [
        ("a.jsonl:1", "Some words.", {"source": "here"}),
        ("a.jsonl:2", "Other words.", {}),
        ("b.txt", "A file of its own.\nTwo lines.", {}),
        ("c.parquet:0", "From parquet.", {"n": 1}),
    ]
    assert all(document.kind == "text" for document in documents)
    documents, _ = read("text", tmp_path / "text" / "b.txt", lines=True)
    assert [(d.id, d.text) for d in documents] == [("b.txt:1", "A file of its own."), ("b.txt:2", "Two lines.")]
    _, notes = read("text", tmp_path / "text" / "a.jsonl", column="source")
    assert notes.skipped.examples == {"record without a text 'source'": ["a.jsonl:2 (it has text)"]}


def test_packed_text(tmp_path: Path) -> None:
    import gzip
    import zipfile

    content = b'{"text": "one"}\n{"text": "two"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "b.jsonl.zip", "w") as archive:
        archive.writestr("b.jsonl", content)
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(content * 1000)[:60])
    documents, notes = read("text", tmp_path)
    assert [document.id for document in documents[:4]] == [
        f"{x}:{n}" for x in ("a.jsonl.gz", "b.jsonl.zip") for n in (1, 2)
    ]
    assert notes.skipped.counts["damaged file: the rest of it could not be read"] == 1


def test_packed_text_that_is_damaged(tmp_path: Path) -> None:
    import gzip
    import zipfile

    packed = bytearray(gzip.compress(b"some words " * 99))
    packed[12] ^= 0xFF  # in the middle of the stream, where zlib finds it
    (tmp_path / "a.txt.gz").write_bytes(packed)
    zipfile.ZipFile(tmp_path / "b.jsonl.zip", "w").close()
    documents, notes = read("text", tmp_path)
    assert documents == []
    examples = notes.skipped.examples["damaged file: the rest of it could not be read"]
    assert [example.split(" ")[0] for example in examples] == ["a.txt.gz", "b.jsonl.zip"]


def test_llava(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": picture(1), "b.png": picture(2)})
    records = [
        {
            "id": "x",
            "image": ["a.png", "b.png"],
            "conversations": [
                {"from": "system", "value": "Be short."},
                {"from": "human", "value": "<image>\nLeft or\n<image> right?"},
                {"from": "gpt", "value": "Left.\n"},
            ],
        },
        {"image": "a.png", "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]},
    ]
    write_files(tmp_path, {"data.json": json.dumps(records, indent=2)})
    documents, notes = read("llava", tmp_path / "data.json")
    first, second = documents
    assert first.kind == "chat"
    assert layout(first) == ["Be short.", "[picture]", "Left or", "[picture]", "right?", "Left."]
    assert first.meta == {"id": "x", "turns": ["system", "user", "user", "user", "user", "assistant"]}
    assert [part.target for part in first.parts if isinstance(part, Text)] == [False, False, False, True]
    assert [image.data for image in first.images] == [picture(1), picture(2)]
    assert layout(second) == ["[picture]", "What?", "It."]
    assert not notes.skipped.counts
    as_lines = write_lines(tmp_path / "data.jsonl", records)
    assert [layout(d) for d in read("llava", as_lines)[0]] == [layout(d) for d in documents]


def test_llava_bad_records(tmp_path: Path) -> None:
    answer = {"from": "gpt", "value": "yes"}
    records = [
        {"conversations": "no"},
        {"conversations": [{"from": "alien", "value": "?"}]},
        {"conversations": [{"from": "human", "value": "?"}]},
        {"image": "gone.png", "conversations": [{"from": "human", "value": "<image>?"}, answer]},
        {"image": "a.png", "conversations": [{"from": "human", "value": "<image><image>?"}, answer]},
        {"image": 7, "conversations": [{"from": "human", "value": "<image>?"}, answer]},
        3,
        {"conversations": [{"from": "human", "value": "fine?"}, answer]},
    ]
    write_files(tmp_path, {"x.json": json.dumps(records), "cut.json": json.dumps(records[-1:] * 2)[:-20]})
    documents, notes = read("llava", tmp_path)
    assert [document.id for document in documents] == ["cut.json:0", "x.json:7"]
    assert dict(notes.skipped.counts) == {
        "turns of a conversation that are a text": 1,
        "turn whose role is none of user, assistant and system": 1,
        "conversation without an answer": 1,
        "the picture's file is missing": 1,
        "a picture that is a number": 1,
        "conversation whose <image> marks and pictures differ in number": 1,
        "JSON record that is no object": 1,
        "broken JSON array: the rest of it could not be read": 1,
    }


def test_json_array_longer_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm1.data.readers.lines._CHUNK", 7)
    turns = [{"from": "human", "value": "é" * 30}, {"from": "gpt", "value": "ok"}]
    write_files(
        tmp_path, {"x.json": json.dumps([{"id": n, "conversations": turns} for n in range(20)], ensure_ascii=False)}
    )
    documents, notes = read("llava", tmp_path / "x.json")
    assert [document.meta["id"] for document in documents] == list(range(20))
    assert {layout(document)[0] for document in documents} == {"é" * 30}
    assert not notes.skipped.counts


def test_image_folder(tmp_path: Path) -> None:
    write_every_format(tmp_path)
    write_files(
        tmp_path / "folder",
        {"c.png": picture(3), "d.png": picture(4), "d.txt": " \n", "e.png": b"no picture", "e.txt": "e"},
    )
    documents, notes = read("image-folder", tmp_path / "folder")
    assert [(d.id, layout(d)) for d in documents] == [
        ("a.png", ["[picture]", " a ramp"]),
        ("sub/b.webp", ["[picture]", " another"]),
    ]
    assert dict(notes.skipped.counts) == {
        "picture without a caption file": 1, "caption that is empty": 1, "not a picture, or a damaged one": 1,
    }  # fmt: skip
    write_files(tmp_path / "two", {"a.png": picture(), "a.txt": "English\nde.utf8=Deutsch\n"})
    assert read("image-folder", tmp_path / "two", first_line=True)[0][0].text == " English"


def test_image_folder_of_classes(tmp_path: Path) -> None:
    write_files(tmp_path, {"fox/a.png": picture(1), "owl/a.png": picture(2), "owl/a.txt": "not read"})
    documents, _ = read("image-folder", tmp_path, classes=True)
    assert [(d.text, d.meta["label"]) for d in documents] == [(" fox", "fox"), (" owl", "owl")]


def test_html(tmp_path: Path) -> None:
    write_every_format(tmp_path)
    documents, notes = read("html", tmp_path / "html")
    assert [(d.id, d.kind, layout(d)) for d in documents] == [
        ("a.html", "interleaved", ["Head\nSome bold text\n", "[picture]", " after\n"]),
        ("sub/b.htm", "text", ["café\n"]),
    ]
    assert documents[0].meta == {"title": "T"}
    assert not notes.skipped.counts


def test_html_paths_encodings_and_oddities(tmp_path: Path) -> None:
    import base64

    data_address = "data:image/png;base64," + base64.b64encode(picture(5)).decode()
    pages: dict[str, bytes | str] = {
        "sub/paths.html": "<img src='../a%20b.png?v=1'><img src='/a b.png'><img src='../../x.png'>"
        f"<img src='//cdn/x.png'><img src='{data_address}'><img src='data:x'><img><nav><img src='a.png'>menu</nav>",
        "latin.html": "<meta charset='iso-8859-1'><p>caf\xe9".encode("latin-1"),
        "windows.html": b"<p>\x93quoted\x94",
        "odd.html": "<![if IE]>a<![weird[b]]><p>c</p</p><pre>x\n  y</pre>z<br>w<td>1<td>2<svg><text>no</svg>",
        "empty.html": b"",
    }
    write_files(tmp_path, {**pages, "a b.png": picture(1)})
    documents, notes = read("html", tmp_path)
    found = {document.id: layout(document) for document in documents}
    assert found["sub/paths.html"] == ["[picture]"] * 3
    assert found["latin.html"] == ["café\n"]
    assert found["windows.html"] == ["“quoted”\n"]
    assert found["odd.html"][0].endswith("x\n  y\nz\nw 1 2\n")
    assert dict(notes.lost.counts) == {
        "the picture lies outside of the source folder": 1,
        "the picture is a web address: fetch it first (with img2dataset, say)": 1,
        "a data: address that can't be decoded": 1,
        "img without an address": 1,
    }
    assert dict(notes.skipped.counts) == {
        "page without text and usable pictures": 1,
    }


@pytest.mark.parametrize("tag", ["nav", "button", "svg", "math"])
def test_what_follows_an_element_without_an_end_is_read(tmp_path: Path, tag: str) -> None:
    write_files(
        tmp_path,
        {"a.html": f"<p>one<{tag}>menu<p>two</p><select>no</select><script>no</script><p>three", "b.html": "b"},
    )
    documents, notes = read("html", tmp_path)
    text = documents[0].text
    assert ("two" in text, "three" in text, "no" in text) == (True, True, False)
    assert notes.changed.examples == {f"<{tag}> without an end: read with what follows": ["a.html"]}
    write_files(tmp_path, {"a.html": f"<p>one<{tag}>menu</{tag}><p>two"})
    documents, notes = read("html", tmp_path)
    assert (documents[0].text, dict(notes.changed.counts)) == ("one\ntwo\n", {})


def test_hub_reads_a_local_folder_of_the_same_form(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rows = {"image": [{"bytes": picture(n), "path": None} for n in range(6)], "caption": [f"c{n}" for n in range(6)]}
    table = Dataset.from_dict(rows, Features({"image": ImageFeature(), "caption": Value("string")}))
    for part in range(2):
        table.shard(2, part).to_parquet(tmp_path / "set" / "data" / f"train-{part:05d}-of-00002.parquet")
    reader = make_reader("hub")
    assert len(reader.shards([str(tmp_path / "set")])) == 2
    documents, _ = read("hub", tmp_path / "set")
    assert [document.id for document in documents] == [f"set/train/{p}:{n}" for p in range(2) for n in range(3)]
    assert [document.text for document in documents] == [f" c{n}" for n in range(6)]
    assert [document.images[0].data for document in documents] == [picture(n) for n in range(6)]


def test_hub_keeps_pictures_in_lists_encoded(tmp_path: Path) -> None:
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    rows = {"images": [[{"bytes": picture(1), "path": "a.png"}, None]], "texts": [[None, "words"]]}
    features = Features({"images": List(ImageFeature()), "texts": List(Value("string"))})
    Dataset.from_dict(rows, features).to_parquet(tmp_path / "set" / "train.parquet")
    (document,), _ = read("hub", tmp_path / "set")
    assert document.parts == (Image(picture(1), "a.png"), Text(" words\n"))


def test_hub_finds_the_reader_by_the_columns(tmp_path: Path) -> None:
    write_every_format(tmp_path)
    by_page, _ = read("hub", tmp_path / "obelics")
    assert next(layout(document) for document in by_page) == ["[picture]", " First.\nSecond.\n"]
    write_parquet(tmp_path / "other" / "train.parquet", {"words": ["x"]})
    with pytest.raises(UserError, match="there is no column text; it has words"):
        read("hub", tmp_path / "other")
    with pytest.raises(UserError, match="can't be opened"):
        read("hub", tmp_path / "obelics", split="nonsense")


CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
- config_name: opt_out_docs_removed_2023_07_12
  data_files:
  - split: train
    path: opt_out_docs_removed_2023_07_12/train-*
---
# Dataset Card
"""


def test_hub_reads_the_layout_of_obelics(tmp_path: Path) -> None:
    """Its card on the Hub names two configurations; pictures are addresses."""
    addresses = ["https://example.org/a.jpg", None, "https://example.org/b.jpg"]
    details = [{"src": address, "alt_text": "a"} if address else None for address in addresses]
    row = {
        "images": addresses,
        "metadata": json.dumps(details),
        "general_metadata": json.dumps({"url": "https://example.org/"}),
        "texts": [None, "Between.", None],
    }
    for folder, rows in (("data", [row, row]), ("opt_out_docs_removed_2023_07_12", [row])):
        columns = {name: [one[name] for one in rows] for name in row}
        write_parquet(tmp_path / "OBELICS" / folder / "train-00000-of-00001-0123456789abcdef.parquet", columns)
    write_files(tmp_path / "OBELICS", {"README.md": CARD})
    documents, notes = read("hub", tmp_path / "OBELICS")
    assert [(document.parts, document.meta) for document in documents] == [
        ((Text("Between.\n"),), {"url": "https://example.org/"})
    ] * 2
    assert notes.lost.counts == {"the picture is a web address: fetch it first (with img2dataset, say)": 4}
    fewer, _ = read("hub", tmp_path / "OBELICS", subset="opt_out_docs_removed_2023_07_12")
    assert len(fewer) == 1
    with pytest.raises(UserError, match="can't be opened.*nonsense"):
        read("hub", tmp_path / "OBELICS", subset="nonsense")


def test_hub_reads_tars_and_image_folders(tmp_path: Path) -> None:
    """Both are loaded by `datasets` itself: tars of img2dataset, and pictures with a metadata.jsonl."""
    write_tar(tmp_path / "tars" / "train-0000.tar", webdataset_members(3))
    by_tar, _ = read("webdataset", tmp_path / "tars")
    documents, _ = read("hub", tmp_path / "tars")
    assert [document.parts[1] for document in documents] == [document.parts[1] for document in by_tar]
    assert [document.images[0].data for document in documents] == [document.images[0].data for document in by_tar]
    write_files(tmp_path / "folder", {"a.png": picture(1), "b.png": picture(2)})
    lines = [{"file_name": "a.png", "text": "one"}, {"file_name": "b.png", "text": "two"}]
    write_lines(tmp_path / "folder" / "metadata.jsonl", lines)
    documents, notes = read("hub", tmp_path / "folder")
    assert [(document.text, document.images[0].data) for document in documents] == [
        (" one", picture(1)),
        (" two", picture(2)),
    ]
    assert not notes.skipped.counts


def test_hub_columns_can_be_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", {"photo": [picture(1)], "alt": ["a ramp"], "prose": ["words"]})
    (document,), _ = read("hub", tmp_path / "set", image="photo", caption="alt")
    assert document.parts[1] == Text(" a ramp")
    assert document.meta == {"prose": "words"}
    (document,), _ = read("hub", tmp_path / "set", text="prose")
    assert (document.kind, document.text) == ("text", "words")
    with pytest.raises(UserError, match="there is no column pic; it has photo, alt, prose"):
        read("hub", tmp_path / "set", image="pic", caption="alt")


def test_every_format_is_tested(tmp_path: Path) -> None:
    assert set(write_every_format(tmp_path)) | {"hub"} == set(READERS)
