"""What a corpus replaces when it is written: a corpus, and nothing else of the user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm1.clean import clean
from mm1.corpora import build_corpus
from mm1.data.build import build_from
from mm1.data.corpus import Split, write_corpus
from mm1.document import Document, Text
from mm1.errors import UserError
from mm1.files import whole_folder
from tests.data.sample_sources import picture, write_files

DOCUMENTS = {"train": [Document("a", "text", (Text("A text of a few words."),))]}
WRITERS: dict[str, Callable[[Path, Path], Any]] = {
    "files": lambda source, to: build_from("text", [str(source / "a.txt")], to, workers=1),
    "in place": lambda source, to: build_from("text", [str(source / "a.txt")], to, workers=1, in_place=True),
    "by name": lambda _, to: build_corpus("rounds", to),
    "clean": lambda source, to: clean(source / "corpus", to, ["exact-duplicates"], workers=1),
    "written": lambda _, to: write_corpus(to, DOCUMENTS, licence="-", sources=[]),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "source" / "corpus", DOCUMENTS, licence="-", sources=[])
    return write_files(tmp_path / "source", {"a.txt": "One text."})


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path, source: Path, writer: str) -> None:
    mine = write_files(tmp_path / "mine", {"thesis.tex": "\\section{One}", "web/corpus.json": "{}"})
    with pytest.raises(UserError, match=r"mine: this folder has other files and is no corpus \(thesis\.tex, for"):
        WRITERS[writer](source, mine)
    with pytest.raises(UserError, match=r"thesis\.tex: this is no folder, and a corpus is one"):
        WRITERS[writer](source, mine / "thesis.tex")
    for nameless in (Path(), mine / ".."):
        with pytest.raises(UserError, match="this is no folder's name"):
            WRITERS[writer](source, nameless)
    assert (mine / "thesis.tex").read_text() == "\\section{One}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "source"]


def test_sources_in_the_folder_of_the_corpus_are_not_replaced(tmp_path: Path) -> None:
    photos = write_files(tmp_path / "photos", {"a.png": picture(), "a.txt": "a cat"})
    with pytest.raises(UserError, match=r"a\.png: it lies in the folder of the corpus, which a build replaces"):
        build_from("image-folder", [str(photos)], photos, workers=1)
    with pytest.raises(UserError, match="this folder has other files"):
        build_from("hub", [str(photos)], photos, workers=1)
    assert sorted(path.name for path in photos.iterdir()) == ["a.png", "a.txt"]


def test_an_empty_folder_becomes_a_corpus(tmp_path: Path, source: Path) -> None:
    (tmp_path / "to").mkdir()
    WRITERS["files"](source, tmp_path / "to")
    assert len(Split(tmp_path / "to" / "train")) == 1


def test_notes_in_a_corpus_stay(tmp_path: Path, source: Path) -> None:
    to = tmp_path / "to"
    WRITERS["files"](source, to)
    write_files(to, {"README.md": "Ask Ada.", "notes/1.txt": "x", "index/old": "made anew"})
    (to / "link").symlink_to("README.md")
    build_from("text", [str(source / "a.txt")], to, split="heldout", workers=1)
    build_from("text", [str(source / "a.txt")], to, workers=1, force=True)
    assert (to / "README.md").read_text() == "Ask Ada."
    assert sorted(path.name for path in to.iterdir()) == [
        "README.md", "corpus.json", "heldout", "link", "notes", "train",
    ]  # fmt: skip
    assert (to / "link").is_symlink()


@pytest.mark.parametrize(("writer", "made"), [("by name", "built by its name"), ("clean", "made by cleaning")])
def test_a_corpus_of_another_origin_is_not_replaced(tmp_path: Path, source: Path, writer: str, made: str) -> None:
    to = tmp_path / "to"
    WRITERS["files"](source, to)
    with pytest.raises(UserError, match=f"a corpus is there that was not {made}"):
        WRITERS[writer](source, to)
    assert Split(to / "train")[0].text == "One text."


def test_a_copy_that_a_user_keeps_beside_stays(tmp_path: Path) -> None:
    write_files(tmp_path / "web.old", {"mine": "x"})
    for text in ("1", "2"):
        with whole_folder(tmp_path / "web") as new:
            (new / "a").write_text(text)
    assert (tmp_path / "web" / "a").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["web", "web.old"]


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "../x", "train@x", "a,b", "index", "corpus.json"])
def test_names_that_no_split_can_have(tmp_path: Path, source: Path, name: str) -> None:
    with pytest.raises(UserError, match="no split can have this name"):
        build_from("text", [str(source / "a.txt")], tmp_path / "to", split=name, workers=1)
    assert not (tmp_path / "to").exists()
