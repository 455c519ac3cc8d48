"""WebDataset's own grouping: against its rule, with names and members as people have them."""

from __future__ import annotations

import io
import re
import tarfile
import tracemalloc
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.data.readers.reader import Notes
from mm1.data.readers.samples import read_samples
from mm1.errors import UserError
from tests.data.sample_sources import picture, write_tar
from tests.data.test_readers import read

PNG = picture(1)
DOTS = "sample whose name has a dot before its ending: read it with key=last-dot"


def test_tars_from_a_mac(tmp_path: Path) -> None:
    members = [
        (f"{folder}{prefix}{n:04d}.{end}", b"\0\5\x16\7" + bytes(60) if prefix else content)
        for folder in ("", "__MACOSX/")
        for n in range(3)
        for end, content in (("png", PNG), ("txt", b"a square"))
        for prefix in ("._", "")
        if prefix or not folder
    ]
    documents, notes = read("webdataset", write_tar(tmp_path / "mac.tar", [*members, ("./.DS_Store", b"x")]))
    assert [document.id for document in documents] == ["mac.tar/0000", "mac.tar/0001", "mac.tar/0002"]
    assert not notes.skipped.counts
    assert not notes.unread.counts


def test_dots_in_names_are_reported_for_what_they_are(tmp_path: Path) -> None:
    ends = (("png", PNG), ("txt", b"a square"))
    tar = write_tar(tmp_path / "x.tar", [(f"d/frame.{n:04d}.{e}", c) for n in range(500) for e, c in ends])
    documents, notes = read("webdataset", tar)
    assert documents == []
    assert dict(notes.skipped.counts) == {DOTS: 500}
    assert notes.skipped.examples[DOTS] == [f"x.tar/d/frame.{n:04d}" for n in range(5)]
    documents, notes = read("webdataset", tar, key="last-dot")
    assert len(documents) == 500
    assert documents[7].id == "x.tar/d/frame.0007"
    assert documents[7].meta == {"key": "d/frame.0007"}
    assert not notes.skipped.counts
    with pytest.raises(UserError, match="key is 'last': choose one of first-dot, last-dot"):
        read("webdataset", tar, key="last")


def test_dots_of_several_samples_and_further_members(tmp_path: Path) -> None:
    members = [
        ("a.final.png", PNG), ("a.final.txt", b"one"),
        ("b.png", PNG), ("b.mask.png", PNG), ("b.txt", b"two"),
        ("c.v1.png", PNG), ("c.v1.txt", b"three"), ("c.v2.png", PNG), ("c.v2.txt", b"four"),
        ("d.emb.npy", b"\x93NUMPY"), ("d.txt", b"five"),
    ]  # fmt: skip
    documents, notes = read("webdataset", write_tar(tmp_path / "x.tar", members))
    assert [document.text for document in documents] == [" two"]
    assert notes.skipped.as_dict() == {
        DOTS: {"count": 3, "examples": ["x.tar/a.final", "x.tar/c.v1", "x.tar/c.v2"]},
        "sample without a picture": {"count": 1, "examples": ["x.tar/d (emb.npy, txt)"]},
    }
    documents, _ = read("webdataset", tmp_path / "x.tar", key="last-dot")
    assert [document.text for document in documents] == [" one", " three", " four"]


def test_what_no_sample_needs_is_not_held(tmp_path: Path) -> None:
    film = bytes(2**20)
    members = [("0.png", PNG), ("0.txt", b"a square"), *((f"0.part{n}.mp4", film) for n in range(30))]
    tar = write_tar(tmp_path / "x.tar", members)
    tracemalloc.start()
    (sample,) = read_samples(str(tar), "x", Notes())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(sample.members) == {"png", "txt"}
    assert len(sample.endings) == 10
    assert peak < 4 * 2**20


def test_other_endings_and_members(tmp_path: Path) -> None:
    members = [
        ("0.jfif", PNG), ("0.txt", b"one"),
        ("1.png", PNG), ("1.txt", b""), ("1.json", b'{"caption": "two"}'),
        ("2.PNG", PNG), ("2.Caption", b"three"),
        ("3.svg", b"<svg/>"), ("3.txt", b"four"),
        ("4.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"), ("4.txt", b"five"),
        ("5.png", PNG), ("5.txt", PNG),
        ("README", b"words"),
    ]  # fmt: skip
    documents, notes = read("webdataset", write_tar(tmp_path / "x.tar", members))
    assert [document.text for document in documents] == [" one", " two", " three"]
    lfs = "not a picture that is read: it is a pointer of Git LFS (the file itself is fetched by git lfs pull)"
    assert {reason: examples[0].split(" ")[0] for reason, examples in notes.skipped.examples.items()} == {
        "sample without a picture": "x.tar/3",
        lfs: "x.tar/4",
        "caption that is no text: it is a PNG picture": "x.tar/5",
    }
    assert notes.unread.counts == {"tar member whose name has no ending": 1}


def test_a_file_that_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(PNG)
    (tmp_path / "b.tar").write_bytes(b"<!DOCTYPE html><html>Not found</html>")
    _, notes = read("webdataset", tmp_path)
    assert set(notes.skipped.counts) == {
        "file that is no tar: it is a PNG picture",
        "file that is no tar: it is a page in HTML",
    }


def reference(names: list[str]) -> list[tuple[str, list[str]]]:
    """Return keys and endings as webdataset groups members (`base_plus_ext` and `group_by_keys`)."""
    matches = [re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name) for name in names]
    pairs = [(match[1], match[2].lower()) for match in matches if match]
    return [(key, [end for _, end in group]) for key, group in groupby(pairs, key=lambda pair: pair[0])]


FOLDERS, STEMS = st.sampled_from(["", "d/", "d.v1/"]), st.sampled_from(["a", "b", "._a", "a.b", ".b", "x_1"])
ENDINGS = st.sampled_from(["png", "TXT", "json", "seg.png", "npy"])


@settings(max_examples=150)
@given(parts=st.lists(st.tuples(FOLDERS, STEMS, ENDINGS), min_size=1, max_size=12, unique_by=str))
def test_samples_are_those_of_the_library(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str, str]]
) -> None:
    names = [f"{folder}{stem}.{end}" for folder, stem, end in parts]
    tar = write_tar(tmp_path_factory.getbasetemp() / "x.tar", [(name, b"x") for name in names])
    notes = Notes()
    found = [(sample.key, sample.endings) for sample in read_samples(str(tar), "x", notes)]
    # Below a folder the library's pattern takes hidden names for endings of the folder's own name.
    wanted = reference([name for name in names if not re.search(r"(^|/)\.[^/]*$", name)])
    dotted = [
        (key, ends)
        for key, ends in wanted
        if "png" not in ends and any(re.fullmatch(r".*\.(png|txt|json)", end) for end in ends)
    ]
    assert found == [sample for sample in wanted if sample not in dotted]
    assert bool(notes.skipped.counts[DOTS]) == bool(dotted)


@pytest.mark.parametrize("cut", range(0, 6000, 97))
def test_a_tar_cut_anywhere_loses_nothing_unseen(tmp_path: Path, cut: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for n in range(2):
            for end, content in (("png", PNG), ("txt", b"a square")):
                member = tarfile.TarInfo(f"{n}.{end}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    whole = out.getvalue()
    (tmp_path / "x.tar").write_bytes(whole[:cut])
    documents, notes = read("webdataset", tmp_path / "x.tar")
    assert len(documents) == 2 or notes.skipped.counts or notes.changed.counts
