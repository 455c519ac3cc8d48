"""What many small files cost: they become few, and a process opens a split once."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from mm1.clean import clean, job, read_steps
from mm1.data import build, schema, shards
from mm1.data.build import build_from
from mm1.data.corpus import Split, open_split, shared_split, write_corpus
from mm1.data.readers import make_reader
from mm1.data.writer import content_hash, document_digest
from mm1.document import Document, Text
from mm1.errors import UserError
from tests.data.sample_sources import webdataset_members, write_files, write_tar


def small_tars(folder: Path, count: int) -> str:
    for number in range(count):
        write_tar(folder / f"{number:03d}.tar", webdataset_members(1 + number % 3, first=3 * number))
    return str(folder)


def test_small_shards_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_tars(tmp_path / "tars", 30)
    read_together = build_from("webdataset", [source], tmp_path / "read together", workers=1)
    monkeypatch.setattr(build, "_JOINED_BYTES", 0)
    joined = build_from("webdataset", [source], tmp_path / "joined", workers=1)
    assert joined["splits"]["train"]["content_hash"] == read_together["splits"]["train"]["content_hash"]
    monkeypatch.setattr(shards, "_SMALL_BYTES", 0)
    apart = build_from("webdataset", [source], tmp_path / "apart", workers=1)
    assert joined["splits"] == apart["splits"]
    assert [file.name for file in (tmp_path / "joined" / "train").glob("*.arrow")] == ["000000.arrow"]
    assert len(list((tmp_path / "apart" / "train").glob("*.arrow"))) == 30
    one, other = (Split(tmp_path / name / "train") for name in ("joined", "apart"))
    assert list(one) == list(other) == [one[row] for row in range(len(one))]
    assert content_hash(map(document_digest, one)) == one.content_hash == other.content_hash
    assert len(list(one.batches())) == 1, "rows are put together too"


def test_small_source_files_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a size and a number; the account tells of every file."""
    write_files(tmp_path / "texts", {f"{n:02d}.txt": "" if n == 3 else "w" * (50 if n == 5 else 10) for n in range(12)})
    monkeypatch.setattr(build, "_JOINED_BYTES", 40)
    monkeypatch.setattr(build, "_JOINED_FILES", 4)
    shards = make_reader("text").shards([str(tmp_path / "texts")])
    joined = build._joined(shards, build._states(shards))
    assert [len(shard.files) for shard in joined] == [4, 1, 1, 4, 2]
    info = build_from("text", [str(tmp_path / "texts")], tmp_path / "to", workers=1)["splits"]["train"]
    assert (info["read"], info["documents"]) == (12, 11)
    assert info["skipped"]["empty text"]["examples"] == ["03.txt"]


def test_large_shards_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "tars" / "000.tar", webdataset_members(40))
    source = small_tars(tmp_path / "tars" / "small", 9)
    write_tar(Path(source) / "004.tar", webdataset_members(40, first=100))
    monkeypatch.setattr(build, "_JOINED_BYTES", 0)
    monkeypatch.setattr(shards, "_SMALL_BYTES", 8_000)
    info = build_from("webdataset", [str(tmp_path / "tars")], tmp_path / "to", workers=1)
    files = sorted(file.name for file in (tmp_path / "to" / "train").glob("*.arrow"))
    assert files == ["000000.arrow", "000001.arrow", "000005.arrow", "000006.arrow"]
    split = Split(tmp_path / "to" / "train")
    assert len(split) == info["splits"]["train"]["documents"]
    assert content_hash(map(document_digest, split)) == split.content_hash


def test_cleaning_opens_a_split_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(str(n), "text", (Text(f"words and more words {n}"),)) for n in range(50)]
    write_corpus(tmp_path / "c", {"train": documents}, licence="", sources=[])
    (tmp_path / "steps.yaml").write_text("- exact-duplicates\n- near-duplicates\n")
    monkeypatch.setattr(job, "ROWS_PER_UNIT", 5)
    opened = []
    load = Split.__init__

    def counted(self: Split, directory: Path) -> None:
        opened.append(directory)
        load(self, directory)

    monkeypatch.setattr(Split, "__init__", counted)
    clean(tmp_path / "c", tmp_path / "clean", read_steps(tmp_path / "steps.yaml"), workers=1)
    assert len(opened) <= 2, "by the job, and for its 30 units"


def test_a_split_is_opened_anew_when_its_corpus_is(tmp_path: Path) -> None:
    for text in ("one", "another"):
        write_corpus(tmp_path / "c", {"train": [Document("a", "text", (Text(text),))]}, licence="", sources=[])
        assert shared_split(tmp_path / "c" / "train")[0].text == text
        assert shared_split(tmp_path / "c" / "train") is shared_split(tmp_path / "c" / "train")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_opening_holds_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of shards of an earlier version would pass the limit of open files."""
    monkeypatch.setattr(shards, "_SMALL_BYTES", 0)
    build_from("webdataset", [small_tars(tmp_path / "tars", 20)], tmp_path / "to", workers=1)
    before = len(os.listdir("/proc/self/fd"))
    split = Split(tmp_path / "to" / "train")
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert len(list(split)) == len(split)


def test_corpora_that_datasets_wrote_are_read(tmp_path: Path) -> None:
    """Those of earlier versions: the same columns, with its own metadata."""
    from datasets import Dataset

    documents = [Document(str(n), "text", (Text(f"words {n}"),), {"n": n}) for n in range(3)]
    write_corpus(tmp_path / "c", {"train": documents}, licence="", sources=[])
    file = tmp_path / "c" / "train" / "00000.arrow"
    assert Dataset.from_file(str(file)).column_names == ["id", "kind", "parts", "meta"]
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_stream(source).read_all()
    marked = table.replace_schema_metadata({"huggingface": "{}"})
    with pa.OSFile(str(file.with_name("00001.arrow")), "wb") as sink, pa.ipc.new_stream(sink, marked.schema) as stream:
        stream.write_table(marked)
    assert list(open_split(str(tmp_path / "c" / "train"))) == documents * 2


def test_a_damaged_corpus_is_one_sentence(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", {"train": [Document("a", "text", (Text("words"),))]}, licence="", sources=[])
    file = tmp_path / "c" / "train" / "00000.arrow"
    for content in (b"", b"nonsense" * 9, file.read_bytes()[:300]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"00000\.arrow: the corpus is damaged \(.*\): build it again"):
            open_split(str(tmp_path / "c" / "train"))
    assert schema.TARGET == "learned"
