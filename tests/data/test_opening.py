"""Files as people pack and encode them: unpacked and decoded by their bytes, or refused by what they are."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.data.build import build_from
from mm1.data.readers import READERS, lines, make_reader
from mm1.data.readers.layout import first_value
from mm1.data.readers.lines import read_json_records
from mm1.data.readers.reader import Notes
from tests.data.sample_sources import picture, webdataset_members, write_every_format, write_files, write_tar
from tests.data.test_find import FOLDERS, options, plain
from tests.data.test_readers import read


def zipped(content: bytes, *others: tuple[str, bytes], name: str = "member") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, member_content in ((name, content), *others):
            archive.writestr(member, member_content)
    return out.getvalue()


def lz4(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
    ".lz4": lz4,
    ".zip": zipped,
}
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-be", "utf-32")
OF_LINES = {"text": "a.jsonl", "llava": "data.json", "messages": "a.jsonl", "mmc4": "docs.jsonl"}
OF_TEXT = {**OF_LINES, "html": "a.html"}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("format_", OF_TEXT)
def test_packed_files_are_read_in_every_format_of_text(tmp_path: Path, format_: str, packing: str) -> None:
    write_every_format(tmp_path)
    folder = tmp_path / FOLDERS.get(format_, format_)
    file = folder / OF_TEXT[format_]
    before, _ = read(format_, file, **options(format_, folder))
    content = PACKINGS[packing](file.read_bytes())
    write_files(folder, {file.name + packing: content, f"as-it-was/{file.name}": content})
    (folder / "as-it-was" / "images").symlink_to("../images")
    (folder / "as-it-was" / "p").symlink_to("../p")
    after, notes = read(format_, f"{file}{packing}", **options(format_, folder))
    assert plain(after) == plain(before) != []
    assert not notes.skipped.counts
    hidden, _ = read(format_, folder / "as-it-was" / file.name, **options(format_, folder))
    assert plain(hidden) == plain(before), "the name doesn't decide"
    file.unlink()
    everything, _ = read(format_, folder, **options(format_, folder))
    assert {document.id for document in everything} >= {document.id for document in after}


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst", ".lz4"])
def test_packed_tars(tmp_path: Path, packing: str) -> None:
    content = write_tar(tmp_path / "plain.tar", webdataset_members(3)).read_bytes()
    (tmp_path / f"a.tar{packing}").write_bytes(PACKINGS[packing](content))
    documents, notes = read("webdataset", tmp_path / f"a.tar{packing}")
    assert [document.text for document in documents] == [" caption 0", " caption 1", " caption 2"]
    assert not notes.skipped.counts
    assert not notes.changed.counts
    (tmp_path / f"b.tar{packing}").write_bytes(PACKINGS[packing](content)[:-30])
    documents, notes = read("webdataset", tmp_path / f"b.tar{packing}")
    assert notes.skipped.counts == {"damaged tar: the rest of it could not be read": 1}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_packing_is_counted(tmp_path: Path, packing: str, damage: str) -> None:
    content = "".join(json.dumps({"text": f"some words and the number {n}"}) + "\n" for n in range(9999)).encode()
    packed = bytearray(PACKINGS[packing](content))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[len(packed) // 2 : len(packed) // 2 + 20] = bytes(20)
    for name in ("a.jsonl", "a.txt"):
        (tmp_path / (name + packing)).write_bytes(packed)
        documents, notes = read("text", tmp_path / (name + packing))
        assert len(documents) < 9999
        assert sum(notes.skipped.counts.values()) >= 1 or notes.changed.counts


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("format_", OF_TEXT)
def test_byte_order_marks_are_honoured_in_every_format_of_text(tmp_path: Path, format_: str, encoding: str) -> None:
    write_every_format(tmp_path)
    folder = tmp_path / FOLDERS.get(format_, format_)
    file = folder / OF_TEXT[format_]
    file.write_text(file.read_text().replace("ramp", "квадрат 😀").replace("words", "слова 😀"))
    before, _ = read(format_, file, **options(format_, folder))
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    file.write_bytes(mark + file.read_text().encode(encoding))
    after, notes = read(format_, file, **options(format_, folder))
    assert plain(after) == plain(before)
    assert not notes.skipped.counts
    assert not notes.changed.counts


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_byte_order_marks_of_captions_and_texts(tmp_path: Path, encoding: str) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    caption = mark + "квадрат".encode(encoding)
    record = mark + json.dumps({"caption": "квадрат"}, ensure_ascii=False).encode(encoding)
    members = [("0.png", picture()), ("0.txt", caption), ("1.png", picture()), ("1.json", record)]
    documents, notes = read("webdataset", write_tar(tmp_path / "x.tar", members))
    assert [document.text for document in documents] == [" квадрат"] * 2
    write_files(tmp_path / "folder", dict(members))
    documents, notes = read("image-folder", tmp_path / "folder")
    assert [document.text for document in documents] == [" квадрат"] * 2
    write_files(tmp_path, {"a.txt": mark + "квадрат\nтень".encode(encoding)})
    (whole,), _ = read("text", tmp_path / "a.txt")
    assert whole.text == "квадрат\nтень"
    assert [document.text for document in read("text", tmp_path / "a.txt", lines=True)[0]] == ["квадрат", "тень"]
    assert not notes.changed.counts


def test_utf16_that_is_cut_off_is_counted(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jsonl": '{"text": "words"}\n{"text": "more words"}\n'.encode("utf-16")[:-1]})
    documents, notes = read("text", tmp_path / "a.jsonl")
    assert [document.text for document in documents] == ["words"]
    assert notes.changed.counts == {"text that is not UTF-8: bad bytes replaced by U+FFFD": 1}
    assert len(notes.skipped.counts) == 1


FOREIGN = {
    "a PNG picture": picture(),
    "a PDF": b"%PDF-1.7\n1 0 obj\n",
    "a document of Office": zipped(b"<x/>", ("word/document.xml", b"<x/>"), name="[Content_Types].xml"),
    "an SQLite database": b"SQLite format 3\0" + bytes(100),
    "a RAR archive": b"Rar!\x1a\x07\x01\0" + bytes(50),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n",
    "Parquet": b"PAR1" + bytes(50) + b"PAR1",
    "Arrow": b"ARROW1\0\0" + bytes(50),
    "": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("format_", [name for name in READERS if name != "hub"])
def test_foreign_files_are_named_in_every_format(tmp_path: Path, format_: str, what: str) -> None:
    ends = {
        "webdataset": ".tar",
        "image-folder": ".png",
        "html": ".html",
        "captions": ".parquet",
        "obelics": ".parquet",
    }
    name = "x" + ends.get(format_, ".jsonl")
    write_files(tmp_path, {name: FOREIGN[what], "x.txt": "a caption"})
    documents, notes = read(format_, tmp_path / name)
    assert documents == [] or (format_, what) == ("image-folder", "a PNG picture")
    assert sum(notes.skipped.counts.values()) >= 1 or documents
    reasons = " ".join(notes.skipped.counts)
    own = {"image-folder": "a PNG picture", "captions": "Parquet", "obelics": "Parquet"}
    by_rows = {"text", "llava", "messages", "questions", "mmc4"}
    if what and own.get(format_) != what and not (format_ in by_rows and what == "Parquet"):
        assert what.split(" of ")[0] in reasons or "zip archive" in reasons


def test_binary_files_are_no_prose(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "a.txt": bytes(range(256)) * 4,
            "b.txt": "Ünïcödé and a form feed\f, \x1b[1mbold\x1b[0m, o\bo\n" * 9,
            "c.txt": "слова на русском языке".encode("cp1251"),
            "d.txt": "Le café est très bon, où est le garçon ?".encode("cp1252"),
            "e.csv": "text,number\nwords,1\n",
            "f.html": "<p>words",
        },
    )
    documents, notes = read("text", tmp_path / "*")
    assert [document.id for document in documents] == ["b.txt", "d.txt"]
    assert {reason: examples[0].split(" ")[0] for reason, examples in notes.skipped.examples.items()} == {
        "file that is no text: it is binary": "a.txt",
        "text that is not UTF-8: convert it first (with iconv, say)": "c.txt",
        "file that is no plain text: a table is read from JSON Lines or Parquet": "e.csv",
        "file that is no plain text: a page is read by the format html": "f.html",
    }
    assert notes.changed.counts == {"text that is not UTF-8: bad bytes replaced by U+FFFD": 1}


@pytest.mark.parametrize("format_", [name for name in READERS if name not in ("hub", "image-folder")])
def test_a_file_that_can_not_be_read_is_not_called_damaged(tmp_path: Path, format_: str) -> None:
    """It has gone; to root, as which tests may run, nothing is forbidden."""
    patterns = write_every_format(tmp_path)[format_]
    shards = make_reader(format_).shards(patterns)
    (first, *_), *_ = [shard.files for shard in shards]
    Path(first).unlink()
    notes = Notes()
    list(make_reader(format_).read(shards[0], notes))
    assert notes.skipped.examples["file that can't be read"][0].startswith(Path(first).name)


def test_json_of_another_name_is_no_prose(tmp_path: Path) -> None:
    records = '{"text": "one"}\n{"text": "two"}\n'
    array = f"\ufeff [{records.strip()}]".replace("\n", ",")
    write_files(tmp_path, {"a.jsonlines": records, "b.dump": array, "c.log": "{x}"})
    documents, _ = read("text", tmp_path / "*")
    assert [document.text for document in documents] == ["one", "two", "one", "two", "{x}"]


def test_all_members_of_archives_are_read_or_counted(tmp_path: Path) -> None:
    record = b'{"text": "words of %s"}\n'
    members = {
        "a.jsonl": record % b"a", "sub/b.jsonl.gz": gzip.compress(record % b"b"), "c.txt": b"words of c",
        "__MACOSX/._a.jsonl": b"\0\5\x16\7", "sub/._b.jsonl": b"\0\5", ".DS_Store": b"x", "d.css": b"x",
        "e.jsonl": picture(), "empty/": b"",
    }  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    write_files(tmp_path, {"x.zip": out.getvalue(), "none.zip": zipped(b"x", ("b.css", b"x"), name="a.css")})
    with tarfile.open(tmp_path / "y.tar.gz", "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for archive_name in ("x.zip", "y.tar.gz"):
        documents, notes = read("text", tmp_path / archive_name)
        assert [(document.id, document.text) for document in documents] == [
            (f"{archive_name}/a.jsonl:1", "words of a"),
            (f"{archive_name}/sub/b.jsonl.gz:1", "words of b"),
            (f"{archive_name}/c.txt", "words of c"),
        ]
        assert notes.skipped.as_dict() == {
            "file that is no text: it is a PNG picture": {"count": 1, "examples": [f"{archive_name}/e.jsonl"]}
        }
        assert notes.unread.examples["member of an archive that the format doesn't read"][0] == f"{archive_name}/d.css"
    documents, notes = read("text", tmp_path / "none.zip")
    assert notes.skipped.counts == {"archive without a member that the format reads": 1}


def test_a_zip_with_a_password_is_counted(tmp_path: Path) -> None:
    content = bytearray(zipped(b'{"text": "words"}\n', name="a.jsonl"))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1  # encrypted
    (tmp_path / "a.jsonl.zip").write_bytes(content)
    _, notes = read("text", tmp_path / "a.jsonl.zip")
    (example,) = notes.skipped.examples["damaged file: the rest of it could not be read"]
    assert "password" in example


def test_a_file_that_unpacks_to_itself_ends(tmp_path: Path) -> None:
    content = b'{"text": "words"}'
    for _ in range(6):
        content = gzip.compress(content)
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    _, notes = read("text", tmp_path / "a.jsonl.gz")
    assert notes.skipped.counts == {"file that is no text: it is packed by gzip": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150)
@given(
    records=st.lists(st.dictionaries(st.text(), JSON, max_size=4), min_size=1, max_size=8),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 1, 4]),
    ascii_=st.booleans(),
)
def test_json_arrays_are_read_as_json_loads_reads_them(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, object]], chunk: int, indent: int, ascii_: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "x.json"
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", chunk)
        notes = Notes()
        found = list(read_json_records(str(file), "x", notes))
    assert not notes.skipped.counts
    assert [name for name, _ in found] == [f"x:{number}" for number in range(len(records))]
    if ascii_ or not any("\ud800" <= character <= "\udfff" for character in text):
        assert [record for _, record in found] == json.loads(text)
        assert [[type(v) for v in record.values()] for _, record in found] == [
            [type(v) for v in record.values()] for record in json.loads(text)
        ]


def test_json_that_is_neither_lines_nor_an_array(tmp_path: Path) -> None:
    one = {"text": "words", "nan": float("nan"), "list": [{"a": 1}]}
    write_files(
        tmp_path,
        {
            "a.json": json.dumps(one, indent=2),
            "b.json": json.dumps(one, indent=2) + "\n" + json.dumps(one, indent=2) + "\n",
            "c.json": json.dumps(one, indent=2)[:-9],
            "d.json": "[]",
            "e.json": '[{"text": "one"}, {"text": nonsense}, {"text": "three"}]',
            "f.json": '[{"text": "one"}, {"text": "two"}',
            "g.json": "[" * 100_000,
            "h.json": '[{"text": "one", "n": ' + "9" * 5000 + "}]",
        },
    )
    documents, notes = read("text", tmp_path)
    names = ["a.json:0", "b.json:0", "b.json:1", "e.json:0", "f.json:0", "f.json:1", "h.json:0"]
    assert [document.id for document in documents] == names
    assert {reason: [e.split(" ")[0] for e in examples] for reason, examples in notes.skipped.examples.items()} == {
        "broken JSON object: the rest of it could not be read": ["c.json"],
        "empty file": ["d.json"],
        "broken JSON array: the rest of it could not be read": ["e.json", "f.json", "g.json"],
    }


def test_a_large_record_is_not_parsed_over_and_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_CHUNK", 1 << 12)
    tried = []

    def counted(text: str, place: int) -> tuple[object, int]:
        tried.append(len(text) - place)
        return first_value(text, place)

    monkeypatch.setattr(lines, "first_value", counted)
    records = [{"image": "x" * (1 << 20)}, *({"id": n} for n in range(3000))]
    write_files(tmp_path, {"x.json": json.dumps(records)})
    assert len(list(read_json_records(str(tmp_path / "x.json"), "x", Notes()))) == 3001
    assert 3001 <= len(tried) < 3001 + 30, "once a record, and once for each doubling"


def test_a_build_of_packed_files(tmp_path: Path) -> None:
    """The case of the issue: everything that was taken for prose."""
    records = b'{"text": "some words"}\n' * 50
    write_files(
        tmp_path,
        {
            "a.jsonl.zst": PACKINGS[".zst"](records), "b.jsonl.xz": lzma.compress(records),
            "c.jsonl.bz2": bz2.compress(records), "d.ndjson": records, "e.docx": b"PK\3\4" + bytes(range(256)) * 4,
        },
    )  # fmt: skip
    info = build_from("text", [str(tmp_path / "[a-e].*")], tmp_path / "c" / "c1", workers=1)
    assert info["splits"]["train"]["documents"] == 200
    assert [entry["examples"][0].split(" ")[0] for entry in info["skipped"].values()] == ["e.docx"]
