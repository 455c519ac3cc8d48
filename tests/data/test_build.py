"""Building a corpus from files: the same whatever the processes and interruptions."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mm1.data import build, shards
from mm1.data.build import build_from
from mm1.data.corpus import Split, open_split, write_corpus
from mm1.data.readers import READERS
from mm1.data.readers.webdataset import WebDataset
from mm1.document import Document, Text
from mm1.errors import UserError
from tests.data.sample_sources import (
    picture,
    webdataset_members,
    write_every_format,
    write_files,
    write_lines,
    write_tar,
)


def tars(folder: Path, count: int = 4) -> list[str]:
    for number in range(count):
        write_tar(folder / f"{number:05d}.tar", webdataset_members(3, first=3 * number))
    return [str(folder)]


@pytest.mark.parametrize("format_", [name for name in READERS if name != "hub"])
def test_every_format_becomes_a_corpus(tmp_path: Path, format_: str) -> None:
    patterns = write_every_format(tmp_path / "from")[format_]
    options = {"pictures": str(tmp_path / "from" / "mmc4" / "images")} if format_ == "mmc4" else {}
    info = build_from(format_, patterns, tmp_path / "to", workers=1, options=options)
    split = Split(tmp_path / "to" / "train")
    assert info == json.loads((tmp_path / "to" / "corpus.json").read_text())
    assert len(split) == info["splits"]["train"]["documents"] > 0
    assert len({document.id for document in split}) == len(split)
    assert info["skipped"] == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "to"]


def test_processes_make_no_difference_and_neither_does_sharding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_JOINED_BYTES", 0)
    patterns = tars(tmp_path / "tars")
    one = build_from("webdataset", patterns, tmp_path / "one", workers=1)
    two = build_from("webdataset", patterns, tmp_path / "two", workers=2)
    assert one["splits"] == two["splits"]
    documents = list(open_split(str(tmp_path / "one" / "train")))
    whole = write_corpus(tmp_path / "whole", {"train": documents}, licence="-", sources=[])
    assert whole["splits"]["train"]["content_hash"] == one["splits"]["train"]["content_hash"]
    for file in (tmp_path / "one" / "train").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / "train" / file.name).read_bytes()


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_JOINED_BYTES", 0)
    patterns = tars(tmp_path / "tars")
    read: list[str] = []
    whole = WebDataset.read

    def counted(self, shard, notes):
        read.append(Path(shard.files[0]).name)
        if len(read) == 3:
            raise KeyboardInterrupt
        return whole(self, shard, notes)

    monkeypatch.setattr(WebDataset, "read", counted)
    with pytest.raises(KeyboardInterrupt):
        build_from("webdataset", patterns, tmp_path / "to", workers=1)
    assert not (tmp_path / "to").exists()
    build_from("webdataset", patterns, tmp_path / "to", workers=1)
    assert read == ["00000.tar", "00001.tar", "00002.tar", "00002.tar", "00003.tar"]
    build_from("webdataset", patterns, tmp_path / "to", workers=1)  # it is there: nothing is read
    assert len(read) == 5
    build_from("webdataset", patterns, tmp_path / "to", workers=1, force=True)
    assert len(read) == 9
    monkeypatch.undo()
    info = build_from("webdataset", patterns, tmp_path / "other", workers=1)
    assert info["splits"]["train"]["content_hash"] == Split(tmp_path / "to" / "train").content_hash


def test_changed_sources_are_not_mixed_with_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_lines(tmp_path / "x.jsonl", [{"text": "old"}])
    with monkeypatch.context() as patch:
        patch.setattr(build, "publish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_from("text", [str(file)], tmp_path / "to", workers=1)
    write_lines(file, [{"text": "new!"}])
    build_from("text", [str(file)], tmp_path / "to", workers=1)
    assert [document.text for document in Split(tmp_path / "to" / "train")] == ["new!"]


def test_another_split_is_added(tmp_path: Path) -> None:
    for name in ("train", "heldout"):
        write_lines(tmp_path / f"{name}.jsonl", [{"text": name}])
    for name in ("train", "heldout"):
        info = build_from(
            "text", [str(tmp_path / f"{name}.jsonl")], tmp_path / "to", split=name, workers=1, licence="CC0"
        )
    assert list(info["splits"]) == ["train", "heldout"]
    assert info["licence"] == "CC0"
    for name in ("train", "heldout"):
        assert [document.text for document in Split(tmp_path / "to" / name)] == [name]


def test_text_that_arrow_cannot_hold_is_put_right_and_counted(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"text": "lone \\ud800 surrogate", "m\\udfff": ["\\ud800", NaN]}\n'
        '{"text": "nul\\u0000s"}\n{"text": "\\u0000"}\n'
        '{"text": "pair \\ud83d\\ude00"}\n'
    )
    info = build_from("text", [str(tmp_path)], tmp_path / "to", workers=1)
    documents = list(Split(tmp_path / "to" / "train"))
    assert [document.text for document in documents] == ["lone \ufffd surrogate", "nuls", "pair 😀"]
    assert documents[0].meta == {"m\ufffd": ["\ufffd", None]}
    assert {reason: entry["count"] for reason, entry in info["changed"].items()} == {
        "NUL characters removed from a text": 2,
        "lone surrogates in a text replaced by U+FFFD": 1,
    }
    assert info["skipped"] == {"empty text": {"count": 1, "examples": ["x.jsonl:3"]}}


def test_a_caption_of_a_million_characters_is_kept_whole(tmp_path: Path) -> None:
    caption = "long " * 200_000
    write_tar(tmp_path / "x.tar", [("a.png", picture()), ("a.txt", caption.encode())])
    build_from("webdataset", [str(tmp_path / "x.tar")], tmp_path / "to", workers=1)
    assert Split(tmp_path / "to" / "train")[0].text == " " + caption.strip()


def test_ids_that_were_there_before_get_a_number(tmp_path: Path) -> None:
    members = [(name, content) for _ in range(3) for name, content in (("a.png", picture()), ("a.txt", b"a"))]
    members.insert(2, ("b.png", picture()))
    members.insert(3, ("b.txt", b"b"))
    write_tar(tmp_path / "x.tar", members)
    info = build_from("webdataset", [str(tmp_path / "x.tar")], tmp_path / "to", workers=1)
    ids = [document.id for document in Split(tmp_path / "to" / "train")]
    assert ids == ["x.tar/a", "x.tar/b", "x.tar/a#2", "x.tar/a#3"]
    assert info["changed"]["id that was there before: a number added"]["count"] == 2


def test_unknown_engine(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no engine is called 'rya': did you mean ray"):
        build_from("text", write_every_format(tmp_path / "from")["text"], tmp_path / "to", engine="rya")


def test_nothing_left_is_said_with_the_reasons(tmp_path: Path) -> None:
    write_files(tmp_path / "from", {"a.png": picture(), "b.png": b""})
    with pytest.raises(UserError, match=r"no document is left, for these reasons: 2x picture without a caption file"):
        build_from("image-folder", [str(tmp_path / "from")], tmp_path / "to", workers=1)
    assert not (tmp_path / "to").exists()


def test_a_user_error_in_another_process_arrives(tmp_path: Path) -> None:
    patterns = write_every_format(tmp_path)["captions"]
    with pytest.raises(UserError, match="there is no column images; it has jpg, txt"):
        build_from("obelics", [*patterns, str(tmp_path / "obelics")], tmp_path / "to", workers=2)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_the_processes_of_a_killed_job_end(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\nfrom mm1.data.shards import open_job, run_units\n"
        "def work(unit, file):\n"
        "    Path(f'{file.parent.parent}/alive-{unit}').write_text(str(__import__('os').getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        f"    open_job(Path({str(tmp_path / 'job')!r}), {{}})\n"
        f"    run_units(work, [1, 2], Path({str(tmp_path / 'job')!r}), workers=2, description='test')\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    alive = [tmp_path / "job" / f"alive-{unit}" for unit in (1, 2)]
    wait_until(lambda: all(file.is_file() and file.read_text() for file in alive))
    process.kill()
    process.wait()
    workers = [int(file.read_text()) for file in alive]
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    shards.open_job(tmp_path / "job", {"job": 1})
    with pytest.raises(UserError, match="a process died while it worked"):
        shards.run_units(_die, [1, 2], tmp_path / "job", workers=2, description="test")


def _die(unit: int, file: Path) -> dict[str, object]:
    import os

    os._exit(1)


def test_a_shard_without_documents_is_no_hole(tmp_path: Path) -> None:
    write_files(tmp_path / "from", {"a.txt": "a", "b.txt": " ", "c.txt": "c"})
    build_from("text", [str(tmp_path / "from")], tmp_path / "to", workers=1)
    split = Split(tmp_path / "to" / "train")
    assert [split[n].id for n in range(len(split))] == ["a.txt", "c.txt"]
    assert split[0] == Document("a.txt", "text", (Text("a"),), {})
