"""Files are found or named: patterns, folders, links, and what is not read among them, over all formats."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.data.readers import READERS, make_reader
from mm1.data.readers.find import Found, expand_braces, find_files
from mm1.data.readers.reader import Notes, Reader
from mm1.document import Document
from mm1.errors import UserError
from tests.data.sample_sources import picture, webdataset_members, write_every_format, write_files, write_tar
from tests.data.test_readers import read

FORMATS = [name for name in READERS if name != "hub"]
FOLDERS = {"webdataset": "tars", "image-folder": "folder"}  # others are called as the format


def find(*patterns: Path | str, format_: str = "text") -> Found:
    return find_files([str(pattern) for pattern in patterns], make_reader(format_).choose, "file")


def names(found: Found, root: Path) -> list[str]:
    return [os.path.relpath(file, root) for file in found.files]


def plain(documents: list[Document]) -> list[tuple[object, ...]]:
    """Return what documents hold, without what they and their pictures are called."""
    return [(d.kind, d.text, [image.data for image in d.images], dict(d.meta)) for d in documents]


def options(format_: str, folder: Path) -> dict[str, str]:
    return {"pictures": str(folder / "images")} if format_ == "mmc4" else {}


def test_names_that_braces_spell_out_must_be_there(tmp_path: Path) -> None:
    write_files(tmp_path, {"0.txt": "a", "2.txt": "b", "train.jsonl": '{"text": "words"}'})
    for pattern, missing in (("{0..3}.txt", ["1.txt", "3.txt"]), ("{train,extra}.jsonl", ["extra.jsonl"])):
        with pytest.raises(UserError, match=rf"{len(missing)} lead to no file \(.*{'.*, .*'.join(missing)}\)"):
            find(tmp_path / pattern)
    with pytest.raises(UserError, match=r"997 lead to no file \(.*1.txt, .*3.txt, .*4.txt and 994 more\)"):
        find(tmp_path / "{0..998}.txt")
    assert names(find(tmp_path / "{0,2}.txt"), tmp_path) == ["0.txt", "2.txt"]
    assert names(find(tmp_path / "{[0-9],train}.*"), tmp_path) == ["0.txt", "2.txt", "train.jsonl"]


def test_braces_inside_of_one_another_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert expand_braces("{a,b{1..2}}.{x,y}") == ["a.x", "a.y", "b1.x", "b1.y", "b2.x", "b2.y"]
    write_files(tmp_path, {"texts/a.txt": "a"})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names(find("~/texts/*.txt"), tmp_path) == ["texts/a.txt"]


@pytest.mark.parametrize("format_", FORMATS)
def test_linked_folders_are_read_in_every_format(tmp_path: Path, format_: str) -> None:
    write_every_format(tmp_path / "disk")
    folder = tmp_path / "disk" / FOLDERS.get(format_, format_)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "linked").symlink_to(folder, target_is_directory=True)
    (folder / "again").symlink_to(folder, target_is_directory=True)  # a circle
    direct, _ = read(format_, folder, **options(format_, folder))
    linked, notes = read(format_, tmp_path / "here", **options(format_, folder))
    assert len(direct) > 0
    assert [document.id for document in linked] == [f"linked/{document.id}" for document in direct]
    assert plain(linked) == plain(direct)
    assert not notes.skipped.counts
    assert not notes.lost.counts


@pytest.mark.parametrize("format_", ["llava", "html", "mmc4"])
def test_pictures_in_a_linked_folder_are_read(tmp_path: Path, format_: str) -> None:
    write_every_format(tmp_path)
    folder = tmp_path / format_
    pictures = folder / ("p" if format_ == "html" else "images")
    pictures.rename(tmp_path / "elsewhere")
    pictures.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    documents, notes = read(format_, folder, **options(format_, folder))
    assert sum(len(document.images) for document in documents) > 0
    assert not notes.lost.counts


def test_links_come_last_and_no_folder_twice(tmp_path: Path) -> None:
    write_files(tmp_path, {"top/b/real.txt": "r", "top/z.txt": "z", "other/c.txt": "c", "other/deep/d.txt": "d"})
    (tmp_path / "top" / "a").symlink_to("b", target_is_directory=True)
    (tmp_path / "top" / "b" / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "top" / "l").symlink_to("../other", target_is_directory=True)
    (tmp_path / "top" / "file.txt").symlink_to("../other/c.txt")
    (tmp_path / "top" / "gone.txt").symlink_to("nowhere")
    (tmp_path / "top" / "itself").symlink_to("itself")
    found = find(tmp_path / "top")
    assert names(found, tmp_path / "top") == ["file.txt", "z.txt", "b/real.txt", "l/c.txt", "l/deep/d.txt"]
    assert dict(found.unread.counts) == {
        "link to a folder that is read already": 2,
        "link that leads nowhere, or no regular file": 1,
        "file of a kind that the format doesn't read (no ending)": 1,
    }
    assert names(find(tmp_path / "top" / "**" / "*.txt"), tmp_path / "top") == [
        "file.txt", "gone.txt", "z.txt", "b/real.txt", "l/c.txt", "l/deep/d.txt",
    ]  # fmt: skip
    assert len(find(tmp_path / "top" / "**").files) == 5


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.txt": "a"})
    os.mkfifo(tmp_path / "b.txt")
    found = find(tmp_path)
    assert names(found, tmp_path) == ["a.txt"]
    assert found.unread.counts == {"link that leads nowhere, or no regular file": 1}


def test_folders_without_permission_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a.txt": "a", "locked/b.txt": "b"})
    forbid(monkeypatch, "locked")
    for pattern in (tmp_path, tmp_path / "**" / "*.txt", tmp_path / "*"):
        found = find(pattern)
        assert names(found, tmp_path) == ["a.txt"]
        assert found.unread.examples["folder that can't be read"] == [f"{tmp_path}/locked (Permission denied)"]
    found = find(tmp_path / "a.txt", tmp_path / "*")
    assert found.unread.counts == {"folder that can't be read": 1}
    with pytest.raises(UserError, match=r"locked: there is no file below it, only this: 1x folder that can't be read"):
        find(tmp_path / "locked")


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make a folder unreadable; root, as which tests may run, could read it whatever its mode."""
    scandir, listdir = os.scandir, os.listdir

    def checked(folder: str) -> str:
        if os.path.basename(folder) == name:
            raise PermissionError(13, "Permission denied")
        return folder

    monkeypatch.setattr(os, "scandir", lambda folder: scandir(checked(folder)))
    monkeypatch.setattr(os, "listdir", lambda folder: listdir(checked(folder)))


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_not_read_is_counted_in_every_format(tmp_path: Path, format_: str) -> None:
    write_every_format(tmp_path)
    folder = tmp_path / FOLDERS.get(format_, format_)
    whole = build_from(format_, [str(folder)], tmp_path / "a", workers=1, options=options(format_, folder))
    assert whole["unread"] == {}, "pictures and captions that source files refer to don't count"
    write_files(folder, {"x/notes.rtf": "a", "x/b.RTF": "b", "LICENSE": "l", ".hidden/c.rtf": "h", ".DS_Store": "m"})
    info = build_from(format_, [str(folder)], tmp_path / "b", workers=1, options=options(format_, folder))
    assert info["unread"] == {
        "file of a kind that the format doesn't read (.rtf)": {
            "count": 2,
            "examples": [str(folder / "x" / "b.RTF"), str(folder / "x" / "notes.rtf")],
        },
        "file of a kind that the format doesn't read (no ending)": {"count": 1, "examples": [str(folder / "LICENSE")]},
    }
    assert info["splits"]["train"]["unread"] == info["unread"]
    assert info["splits"]["train"]["content_hash"] == whole["splits"]["train"]["content_hash"]
    assert info["splits"]["train"]["read"] == whole["splits"]["train"]["read"], "they are no records"


def test_many_endings_are_counted_together(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.txt": "a", "x.css": "", "y.css": ""} | {f"b.x{n}": "" for n in range(50)})
    unread = find(tmp_path).unread
    assert len(unread.counts) == 21
    assert unread.counts["file of a kind that the format doesn't read (.css)"] == 2
    assert unread.counts["file of a kind that the format doesn't read (other endings)"] == 31


def test_an_empty_folder_says_what_is_there(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.zst": "", "b.zst": "", "c.rar": ""})
    message = r"there is no \.tar .* below it, only this: 2x file of a kind .* \(\.zst\); 1x .* \(\.rar\)"
    with pytest.raises(UserError, match=message):
        make_reader("webdataset").shards([str(tmp_path)])
    with pytest.raises(UserError, match="no such file: check the path"):
        find(tmp_path / "nothing" / "*.txt")


def test_a_pattern_takes_what_it_names_but_not_what_belongs_to_that(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": picture(1, format_="JPEG"), "a.txt": "one", "b.txt": "none", "c.log": "words"})
    documents, notes = read("image-folder", tmp_path / "*")
    assert [document.text for document in documents] == [" one"]
    assert notes.skipped.counts == {"picture without a caption file": 1}, "c.log was named"
    assert [document.id for document in read("text", tmp_path / "c.*")[0]] == ["c.log"]
    assert [document.id for document in read("text", tmp_path / "[bc].[tl]*")[0]] == ["b.txt", "c.log"]


def test_image_folder_matches_names_and_counts_what_has_no_partner(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "fine.png": picture(1), "fine.txt": "a square",
            "a.jfif": picture(2, format_="JPEG"), "a.txt": "a square",
            "D.PNG": picture(3), "D.TXT": "a square",
            "e.png": picture(4), "e.png.txt": "a square",
            "f.dots.png": picture(5), "f.dots.json": '{"caption": "a square"}',
            "g.png": picture(6), "g.txt": " \n", "g.json": '{"caption": "a square"}',
            "b.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "b.txt": "a square",
            "c.jp2": b"\0\0\0\x0cjP  \r\n\x87\n", "c.txt": "a square",
            "h.png": picture(7), "h.txt": picture(8),
            "alone.png": picture(9), "without-picture.txt": "a square", "drawing.svg": "<svg/>", "drawing.txt": "svg",
        },
    )  # fmt: skip
    info = build_from("image-folder", [str(tmp_path)], tmp_path / "c" / "c1", workers=1)
    documents = list(Split(tmp_path / "c" / "c1" / "train"))
    assert [document.id for document in documents] == [
        "D.PNG", "a.jfif", "e.png", "f.dots.png", "fine.png", "g.png",
    ]  # fmt: skip
    assert {document.text for document in documents} == {" a square"}
    skipped = {reason: entry["examples"][0].split(" ")[0] for reason, entry in info["skipped"].items()}
    heic = next(reason for reason, name in skipped.items() if name == "b.heic")
    assert heic.startswith("a HEIC picture, which is read with pip install 'mm1[heif]'") or "damaged" in heic
    assert skipped["picture without a caption file"] == "alone.png"
    assert skipped["caption that is no text: it is a PNG picture"] == "h.png"
    assert sum(entry["count"] for entry in info["skipped"].values()) == 4
    assert {reason: entry["count"] for reason, entry in info["unread"].items()} == {
        "caption file without a picture": 2,
        "file of a kind that the format doesn't read (.svg)": 1,
    }


class Slow(Reader):
    """Stands for nothing: shows that `unread` is told once, by the first shard."""

    suffixes = (".txt",)

    def read(self, shard: object, notes: Notes) -> Iterator[Document]:
        yield from ()


def test_unread_files_are_told_by_the_first_shard(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.txt": "", "b.txt": "", "c.md": ""})
    first, second = Slow().shards([str(tmp_path)])
    assert len(first.unread) == 1
    assert second.unread == {}


def test_the_command_names_and_counts(tmp_path: Path) -> None:
    """In a process of its own, as users have it."""
    write_tar(tmp_path / "00000.tar", webdataset_members(2))
    write_files(tmp_path, {"folder/a.txt": "words", "folder/b.css": "", "folder/c.css": ""})

    def build(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mm1", "data", "build", "--workers", "1", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "200"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    missing = build("--from", "webdataset", f"{tmp_path}/{{00000..00001}}.tar", "--to", tmp_path / "c1")
    assert missing.returncode == 2
    assert "00001.tar" in missing.stderr
    assert "Traceback" not in missing.stderr
    counted = build("--from", "text", tmp_path / "folder", "--to", tmp_path / "c2")
    assert counted.returncode == 0
    printed = " ".join((counted.stdout + counted.stderr).split())
    assert "not read: 2 (file of a kind that the format doesn't read (.css))" in printed
